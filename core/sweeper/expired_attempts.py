"""Ends held attempts whose lease has expired, because their worker is lost, or which run over their time limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from interlock.core.attempts.attempts import AttemptRef, Attempts
from interlock.core.attempts.outcomes import Failure
from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.model.states import StepState

from .run_kind import NOTHING, Due, RunKind, SweepResult, without

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    from interlock.core.database.database import Database
    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

    from .expiry_gate import ExpiryGate

__all__ = ["ExpiredAttempts"]

_steps = table_of_model(WorkflowStep)

_LOST = _steps.c.lease_until <= clock()
_OVER_TIME = _steps.c.timeout_at <= clock()
_HELD = (_steps.c.status == StepState.RUNNING.value, _steps.c.claim_token.is_not(None))


class ExpiredAttempts(RunKind):
    """Fails them; whether they are tried again is decided by the step's policy."""

    name = "attempts"

    def __init__(self, database: Database, settings: Settings, gate: ExpiryGate | None = None) -> None:
        """Set up.

        Args:
            database: Where.
            settings: Times.
            gate: While it is closed only time limits end attempts; None where no gate is needed, because somebody sweeps by hand.
        """
        super().__init__(database, settings)
        self._gate = gate
        self._attempts = Attempts(database, settings)

    def due(self, connection: Connection, limit: int, backed_off: Sequence[str]) -> list[Due]:
        """Find them by the index of `due_at`."""
        query = (
            select(_steps.c.run_id, _steps.c.id)
            .where(_steps.c.due_at <= clock(), *self._expired(), without(backed_off, _steps.c.run_id))
            .order_by(_steps.c.due_at)
            .limit(limit)
        )
        found = [Due(row.run_id, (row.id,)) for row in connection.execute(query)]
        if self._gate is not None:
            self._gate.database_answered()
        return found

    def act(self, unit: UnitOfWork, due: Due) -> SweepResult:
        """Fail the attempt, unless a heartbeat or its own report came between."""
        query = select(_steps.c.task_id, _steps.c.claim_token, _steps.c.claimed_by, _LOST.label("lost"))
        # The gate is asked again: the database may have been away between the search and the run's lock.
        if self._gate is not None:
            self._gate.database_answered()
        row = unit.connection.execute(query.where(_steps.c.id == due.ids[0], *self._expired())).one_or_none()
        if row is None:
            return NOTHING
        meta = {"worker": row.claimed_by}
        lost = row.lost and self._may_expire
        if lost:
            failure = Failure("worker_lost", f"the lease of {row.claimed_by} expired", meta=meta)
        else:
            failure = Failure("timeout", "the attempt ran over its time limit", meta=meta)
        ref = AttemptRef(due.run_id, due.ids[0], row.task_id, row.claim_token)
        self._attempts.fail_within(unit, ref, failure)
        return SweepResult(lost=1) if lost else SweepResult(timed_out=1)

    @property
    def _may_expire(self) -> bool:
        return self._gate is None or self._gate.is_open

    def _expired(self) -> tuple[ColumnElement[bool], ...]:
        return (*_HELD, or_(_LOST, _OVER_TIME) if self._may_expire else _OVER_TIME)
