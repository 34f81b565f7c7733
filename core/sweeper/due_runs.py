"""What the sweeper does to one run that it has found: under the run's lock, with everything checked again.

Between the scan and the lock anything may have happened, another sweeper included: each of these says whether there was still
something to do.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from interlock.core.attempts.attempts import AttemptRef, Attempts
from interlock.core.attempts.outcomes import Failure, retry_now
from interlock.core.database.tables import ApprovalRequest, WorkflowRun, WorkflowStep, table_of_model
from interlock.core.database.types import clock, seconds_after
from interlock.core.errors import GuardRefused
from interlock.core.machine.cause import Cause
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.model.states import WorkflowState
from interlock.core.operations.run_operations import start_run
from interlock.core.orchestration import approvals
from interlock.core.orchestration.flow import ENGINE, Flow
from interlock.core.orchestration.parallel_limits import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from interlock.core.database.database import Database
    from interlock.core.events import Effects
    from interlock.core.settings import Settings

__all__ = ["Overdue"]

logger = logging.getLogger("interlock.sweeper")

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)


class Overdue:
    """Acts on one run at a time, each time in a transaction of its own."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._attempts = Attempts(database, settings)

    def expire(self, row: Row[*tuple[Any, ...]]) -> bool:
        """Fail a held attempt whose lease or time is over.

        Args:
            row: What was found: the step's `id`, `run_id`, `task_id`, `claim_token`, `claimed_by`, and whether it is `lost`.
        """
        ref = AttemptRef(run_id=row.run_id, step_id=row.id, task_id=row.task_id, token=row.claim_token)
        failure = (
            Failure("worker_lost", f"the lease of {row.claimed_by} expired", meta={"worker": row.claimed_by})
            if row.lost
            else Failure("timeout", "the attempt ran over its time limit", meta={"worker": row.claimed_by})
        )

        def work(connection: Connection, effects: Effects) -> bool:
            # Under the run's lock, and again against the clock: a heartbeat may have come between the scan and now.
            UnitOfWork.lock(connection, effects, ref.run_id)
            overdue = _steps.c.lease_until if row.lost else _steps.c.timeout_at
            still = connection.scalar(
                select(_steps.c.id).where(
                    _steps.c.id == row.id, _steps.c.claim_token == row.claim_token, overdue <= clock()
                ),
            )
            if still is None:
                return False
            self._attempts.fail_within(connection, effects, ref, failure)
            return True

        return self._database.transact(work, "sweep")

    def retry(self, run_id: str, step_ids: Sequence[str]) -> int:
        """Start the next attempt of failed steps; returns of how many."""

        def work(connection: Connection, effects: Effects) -> int:
            unit = UnitOfWork.lock(connection, effects, run_id, emitter=self._database.emitter)
            if unit.run.status is not WorkflowState.EXECUTING:
                return 0
            rows = connection.execute(
                select(_steps.c.id, _steps.c.parent_id, _steps.c.spec)
                .where(_steps.c.id.in_(step_ids), _steps.c.retry_at <= clock())
                .order_by(_steps.c.retry_at),
            ).all()
            # A retry that a person asked for may be one too many for a limit; it stays due.
            places = Places(unit, without=[row.id for row in rows])
            due = [row.id for row in rows if places.take(row)]
            retry_now(unit, self._settings, due, Cause(ENGINE, "retry"))
            unit.finish()
            return len(due)

        return self._database.transact(work, "sweep")

    def start(self, run_id: str) -> bool:
        """Start a run whose time has come; one that a guard refuses is asked again later."""

        def work(connection: Connection, effects: Effects) -> bool:
            unit = UnitOfWork.lock(connection, effects, run_id, emitter=self._database.emitter)
            if unit.run.status is not WorkflowState.DRAFT:
                return False
            start_run(unit, self._settings, Cause(ENGINE, "its start time has come"))
            unit.finish()
            return True

        try:
            return self._database.transact(work, "sweep")
        except GuardRefused as refusal:
            logger.info("the start of %s is put off: %s", run_id, refusal)
            self._database.transact(lambda connection, _: self._put_off(connection, run_id))
            return False

    def _put_off(self, connection: Connection, run_id: str) -> None:
        """Try a start again later: refused at each sweep, 500 of them would keep the others from being started."""
        held = (_runs.c.id == run_id, _runs.c.status == WorkflowState.DRAFT.value, _runs.c.start_at <= clock())
        later = seconds_after(self._settings.redispatch_s)
        connection.execute(update(_runs).where(*held).values(start_at=later))

    def end(self, run_id: str) -> bool:
        """End a run whose deadline has passed."""

        def work(connection: Connection, effects: Effects) -> bool:
            unit = UnitOfWork.lock(connection, effects, run_id, emitter=self._database.emitter)
            late = connection.scalar(select(_runs.c.deadline_at <= clock()).where(_runs.c.id == run_id))
            cause = Cause(ENGINE, "the workflow's deadline has passed")
            if not late or unit.run.status not in (WorkflowState.EXECUTING, WorkflowState.WAITING_APPROVAL):
                return False
            # Only an executing run may fail; one that waits for a person has no other edge than cancelled.
            target = WorkflowState.FAILED if unit.run.status is WorkflowState.EXECUTING else WorkflowState.CANCELLED
            Flow(unit, self._settings).end(target, cause, error=cause.reason)
            unit.finish()
            return True

        return self._database.transact(work, "sweep")

    def decide(self, run_id: str, request_id: str) -> bool:
        """Decide a request for approval by its default."""

        def work(connection: Connection, effects: Effects) -> bool:
            unit = UnitOfWork.lock(connection, effects, run_id, emitter=self._database.emitter)
            request = connection.execute(
                select(_requests).where(
                    _requests.c.id == request_id,
                    _requests.c.decision.is_(None),
                    _requests.c.deadline_at <= clock(),
                ),
            ).one_or_none()
            if request is None or unit.run.status is WorkflowState.PAUSED:
                return False
            decision = approvals.APPROVED if (request.spec or {}).get("default") == "approve" else approvals.REJECTED
            cause = Cause(ENGINE, "the deadline of the approval has passed")
            approvals.decide(Flow(unit, self._settings), request, decision, cause, by_deadline=True)
            unit.finish()
            return True

        return self._database.transact(work, "sweep")

    def revive(self, run_id: str) -> bool:
        """Look again at what may move in a run in which nothing does."""

        def work(connection: Connection, effects: Effects) -> bool:
            unit = UnitOfWork.lock(connection, effects, run_id, emitter=self._database.emitter)
            if unit.run.status is not WorkflowState.EXECUTING:
                return False
            due = connection.scalar(
                select(func.count()).where(_steps.c.run_id == run_id, _steps.c.due_at.is_not(None)),
            )
            if due:
                return False
            before = unit.run.seq
            Flow(unit, self._settings).readvance()
            unit.finish()
            return unit.run.seq != before or bool(effects.dispatches)

        return self._database.transact(work, "sweep")
