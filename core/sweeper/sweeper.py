"""What falls due: lost messages, expired leases, retries, deadlines. The engine calls it every few seconds.

Work is found by scanning ids without locks; then each workflow is entered by the one write path, where everything is checked
again. Any number of sweepers may run, be killed, or act on a stale read: zero rows means that somebody else was first.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, delete, exists, or_, select, true

from interlock.core.database.errors import is_unavailable
from interlock.core.database.tables import ApprovalRequest, ControlCommand, WorkflowRun, WorkflowStep, table_of_model
from interlock.core.database.types import clock, seconds_after
from interlock.core.fault_points import fault_point
from interlock.core.model.states import StepState, WorkflowState

from .backoff import PutOff
from .due_runs import Overdue
from .redispatch import BATCH, Redispatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ColumnElement, Row, Select

    from interlock.core.database.database import Database
    from interlock.core.settings import Settings

    from .redispatch import FindMissing

__all__ = ["Sweeper", "Swept"]

logger = logging.getLogger("interlock.sweeper")

_FORGET_EVERY_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 60.0

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)
_commands = table_of_model(ControlCommand)

_EXECUTING = exists().where(_runs.c.id == _steps.c.run_id, _runs.c.status == WorkflowState.EXECUTING.value)


@dataclass(slots=True)
class Swept:
    """What one sweep did, in numbers."""

    redispatched: int = 0
    lost: int = 0
    timed_out: int = 0
    retried: int = 0
    runs_started: int = 0
    runs_overdue: int = 0
    decided: int = 0
    revived: int = 0
    missing: int = 0

    def __bool__(self) -> bool:
        """Whether it did anything."""
        return any(getattr(self, name) for name in self.__slots__)


class Sweeper:
    """One pass over everything that is due."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        find_missing: FindMissing | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up one process's sweeper.

        Args:
            database: Where.
            settings: Times and pace.
            find_missing: See `Redispatcher`.
            clock: Monotonic seconds.
        """
        self._database = database
        self._settings = settings
        self._overdue = Overdue(database, settings)
        self._redispatcher = Redispatcher(database, settings, find_missing)
        self._clock = clock
        self._forget_at = 0.0
        self._parts: dict[str, Callable[[int, Swept], None]] = {
            "dispatches": self._send_due,
            "attempts": self._expire_attempts,
            "retries": self._retry,
            "runs": self._enter_due_runs,
            "approvals": self._decide_overdue,
            "standstills": self._revive,
            "missing": self._send_missing,
            "commands": self._forget_commands,
        }
        # By part: what one part of a sweep cannot do to a run, another may.
        self._put_off = {name: PutOff(settings.sweep_s, _LONGEST_PAUSE_S, clock) for name in self._parts}
        self._failing: set[str] = set()

    def sweep(self, *, batch: int = BATCH) -> Swept:
        """Do what is due now, at most `batch` rows of each kind.

        A part that fails is logged, once until it works again, and keeps no other part from being done.

        Raises:
            SQLAlchemyError: The database is away, full or read-only, so that no part would fare better.
        """
        swept = Swept()
        for name, part in self._parts.items():
            try:
                part(batch, swept)
            except Exception as error:  # whatever it is, the other parts are about other rows
                if is_unavailable(error):
                    raise
                if name not in self._failing:
                    logger.exception("the sweep of %s failed; the others go on", name)
                self._failing.add(name)
            else:
                self._failing.discard(name)
        return swept

    def _send_due(self, batch: int, swept: Swept) -> None:
        swept.redispatched = self._redispatcher.send_due(batch)

    def _send_missing(self, batch: int, swept: Swept) -> None:
        swept.missing = self._redispatcher.send_missing(batch)

    def _forget_commands(self, batch: int, swept: Swept) -> None:  # noqa: ARG002 - a part's signature
        """Delete the outcomes of commands that nobody will repeat any more; once a minute is often enough."""
        now = self._clock()
        if now < self._forget_at:
            return
        self._forget_at = now + _FORGET_EVERY_S
        old = _commands.c.created_at < seconds_after(-self._settings.command_ids_kept_s)
        self._database.transact(lambda connection, _: connection.execute(delete(_commands).where(old)))

    def _in_reach(self, part: str, run_id: ColumnElement[str]) -> ColumnElement[bool]:
        """Leaves out the runs that this part has just failed at: a batch of them would hide what is behind."""
        put_off = self._put_off[part].now()
        return run_id.not_in(put_off) if put_off else true()

    def _read(self, query: Select[*tuple[Any, ...]], part: str) -> Sequence[Row[*tuple[Any, ...]]]:
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        if rows:
            fault_point("sweep.found", part)
        return rows

    def _tried(self, part: str, run_id: str, act: Callable[[], int], *, crowded: bool = False) -> int:
        """What `act` did to a run; 0 where it cannot be done, which must not keep the others from being swept.

        Args:
            part: Of the sweep.
            run_id: The run; put off where it fails.
            act: Tries.
            crowded: There may be others behind this batch, so a run to which nothing can be done is put off as well.
        """
        try:
            done = act()
        except Exception as error:  # whatever is stored there, by whichever version
            if is_unavailable(error):
                raise
            logger.exception("could not sweep the workflow %s", run_id)
            self._put_off[part].add(run_id)
            return 0
        if done:
            self._put_off[part].forget(run_id)
        elif crowded:
            self._put_off[part].add(run_id)
        return done

    # --- the parts that look for runs -----------------------------------------------------------------------------------

    def _expire_attempts(self, batch: int, swept: Swept) -> None:
        """Attempts whose worker is lost, or which run over their time."""
        query = (
            select(
                _steps.c.id,
                _steps.c.run_id,
                _steps.c.task_id,
                _steps.c.claim_token,
                _steps.c.claimed_by,
                (_steps.c.lease_until <= clock()).label("lost"),
            )
            .where(
                _steps.c.due_at <= clock(),
                _steps.c.status == StepState.RUNNING.value,
                _steps.c.claim_token.is_not(None),
                or_(_steps.c.lease_until <= clock(), _steps.c.timeout_at <= clock()),
                self._in_reach("attempts", _steps.c.run_id),
            )
            .order_by(_steps.c.due_at)
            .limit(batch)
        )
        for row in self._read(query, "attempts"):
            if self._tried("attempts", row.run_id, partial(self._overdue.expire, row)):
                swept.lost += bool(row.lost)
                swept.timed_out += not row.lost

    def _retry(self, batch: int, swept: Swept) -> None:
        """Failed steps whose next attempt is due."""
        query = (
            select(_steps.c.run_id, _steps.c.id)
            .where(
                _steps.c.due_at <= clock(),
                _steps.c.status == StepState.FAILED.value,
                _steps.c.retry_at <= clock(),
                _EXECUTING,
                self._in_reach("retries", _steps.c.run_id),
            )
            .order_by(_steps.c.due_at)
            .limit(batch)
        )
        rows = self._read(query, "retries")
        by_run: dict[str, list[str]] = {}
        for row in rows:
            by_run.setdefault(row.run_id, []).append(row.id)
        crowded = len(rows) == batch
        for run_id, step_ids in by_run.items():
            act = partial(self._overdue.retry, run_id, step_ids)
            swept.retried += self._tried("retries", run_id, act, crowded=crowded)

    def _enter_due_runs(self, batch: int, swept: Swept) -> None:
        """Runs that are to start, and runs whose deadline has passed."""
        query = (
            select(_runs.c.id, _runs.c.status)
            .where(
                _runs.c.due_at <= clock(),
                or_(
                    and_(_runs.c.status == WorkflowState.DRAFT.value, _runs.c.start_at <= clock()),
                    and_(
                        _runs.c.status.in_([WorkflowState.EXECUTING.value, WorkflowState.WAITING_APPROVAL.value]),
                        _runs.c.deadline_at <= clock(),
                    ),
                ),
                self._in_reach("runs", _runs.c.id),
            )
            .order_by(_runs.c.due_at)
            .limit(batch)
        )
        for row in self._read(query, "runs"):
            if row.status == WorkflowState.DRAFT.value:
                swept.runs_started += self._tried("runs", row.id, partial(self._overdue.start, row.id))
            else:
                swept.runs_overdue += self._tried("runs", row.id, partial(self._overdue.end, row.id))

    def _decide_overdue(self, batch: int, swept: Swept) -> None:
        """Requests whose deadline has passed; those of a paused run wait with it."""
        query = (
            select(_requests.c.run_id, _requests.c.id)
            .join(_runs, _runs.c.id == _requests.c.run_id)
            .where(
                _requests.c.decision.is_(None),
                _requests.c.deadline_at <= clock(),
                _runs.c.status.in_([WorkflowState.EXECUTING.value, WorkflowState.WAITING_APPROVAL.value]),
                self._in_reach("approvals", _requests.c.run_id),
            )
            .order_by(_requests.c.deadline_at)
            .limit(batch)
        )
        for row in self._read(query, "approvals"):
            act = partial(self._overdue.decide, row.run_id, row.id)
            swept.decided += self._tried("approvals", row.run_id, act)

    def _revive(self, batch: int, swept: Swept) -> None:
        """Executing workflows in which nothing runs, is due, or waits for a person: someone died half-way."""
        step = _steps.alias("moving")
        moving = exists().where(
            step.c.run_id == _runs.c.id,
            or_(
                step.c.due_at.is_not(None),
                step.c.status.in_([StepState.PAUSED.value, StepState.WAITING_APPROVAL.value]),
            ),
        )
        query = (
            select(_runs.c.id)
            .where(
                _runs.c.status == WorkflowState.EXECUTING.value,
                ~moving,
                self._in_reach("standstills", _runs.c.id),
            )
            .order_by(_runs.c.id)
            .limit(batch)
        )
        rows = self._read(query, "standstills")
        crowded = len(rows) == batch
        for row in rows:
            act = partial(self._overdue.revive, row.id)
            swept.revived += self._tried("standstills", row.id, act, crowded=crowded)
