"""What falls due: lost messages, expired leases, retries, deadlines. The engine calls it every few seconds.

Work is found by scanning ids without locks; then each workflow is entered by the one write path, where everything is checked
again. Any number of sweepers may run, be killed, or act on a stale read: zero rows means that somebody else was first.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, delete, exists, func, or_, select, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from . import approvals
from .attempts import AttemptRef, Attempts
from .cause import Cause
from .columns import clock, seconds_after
from .database import is_lost_connection
from .dispatching import DISPATCH_COLUMNS, dispatch_of
from .errors import GuardRefused
from .flow import ENGINE, Flow
from .models import ApprovalRequest, ControlCommand, WorkflowRun, WorkflowStep, table_of_model
from .outcomes import Failure, retry_now
from .parallelism import Places
from .states import StepState, WorkflowState
from .unit_of_work import UnitOfWork
from .verbs import start_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Row

    from .database import Database
    from .events import Effects
    from .settings import Settings

__all__ = ["Sweeper", "Swept"]

logger = logging.getLogger("interlock.sweeper")

BATCH = 500
_FORGET_EVERY_S = 60.0
_MAX_DOUBLINGS = 20  # 2 to that power overflows nothing, and is over any redispatch_max_s

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)
_commands = table_of_model(ControlCommand)

_UNCLAIMED = and_(
    _steps.c.claim_token.is_(None),
    _steps.c.status.in_([StepState.PENDING.value, StepState.RUNNING.value]),
)
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

    def __bool__(self) -> bool:
        """Whether it did anything."""
        return any(getattr(self, name) for name in self.__slots__)


class Sweeper:
    """One pass over everything that is due."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._attempts = Attempts(database, settings)
        self._forget_at = 0.0

    def sweep(self, *, batch: int = BATCH) -> Swept:
        """Do what is due now, at most `batch` rows of each kind."""
        swept = Swept()
        swept.redispatched = self._redispatch_paced(batch)
        self._expire_attempts(batch, swept)
        swept.retried = self._retry(batch)
        self._enter_due_runs(batch, swept)
        swept.decided = self._decide_overdue(batch)
        swept.revived = self._revive(batch)
        self._forget_commands()
        return swept

    def _forget_commands(self) -> None:
        """Delete the outcomes of commands that nobody will repeat any more; once a minute is often enough."""
        now = time.monotonic()
        if now < self._forget_at:
            return
        self._forget_at = now + _FORGET_EVERY_S
        old = _commands.c.created_at < seconds_after(-self._settings.command_ids_kept_s)
        self._database.transact(lambda connection, _: connection.execute(delete(_commands).where(old)))

    # --- lost messages -----------------------------------------------------------------------------------------------

    def redispatch(self, batch: int = BATCH, *, everything: bool = False) -> int:
        """Send the messages of unclaimed attempts again, with the ids they have.

        It moves no state, so it takes no workflow's lock: claimed meanwhile, a row no longer matches; cancelled meanwhile, the
        message is refused at its claim.

        Args:
            batch: How many at most.
            everything: Those that are not due yet too: the broker has lost all that was queued.
        """
        return self._database.transact(
            lambda connection, effects: self._redispatch(connection, effects, batch, everything=everything),
        )

    def _redispatch_paced(self, batch: int) -> int:
        """Send what is due again, in batches, and no more of it in one sweep than the pace allows."""
        left = math.ceil(self._settings.redispatch_rate * self._settings.sweep_s)
        total = 0
        while left > 0:
            size = min(batch, left)
            sent = self.redispatch(size)
            total, left = total + sent, left - sent
            if sent < size:
                break
        return total

    def _redispatch(self, connection: Connection, effects: Effects, batch: int, *, everything: bool) -> int:
        due = _steps.c.dispatch_check_at.is_not(None) if everything else _steps.c.dispatch_check_at <= clock()
        # A body that was told to stop and still shows signs of life is waited for, however long it takes.
        replaceable = or_(_steps.c.drain_until.is_(None), _steps.c.drain_until <= clock())
        # A CTE, which is evaluated once: as a subquery, PostgreSQL may run it again for each row and pass the limit.
        ids = (
            select(_steps.c.id)
            .where(due, replaceable, _UNCLAIMED, _EXECUTING)
            .order_by(_steps.c.dispatch_check_at)
            .limit(batch)
            .with_for_update(skip_locked=True)
            .cte("lost")
        )
        wait_s = (
            func.power(2.0, case((_steps.c.dispatches > _MAX_DOUBLINGS, _MAX_DOUBLINGS), else_=_steps.c.dispatches))
            * self._settings.redispatch_s
        )
        if connection.dialect.name == "sqlite":
            # One writer at a time, so there is nobody to skip; and no power() in every build.
            factor = case(*[(_steps.c.dispatches <= n, 2.0**n) for n in range(1, 10)], else_=1024.0)
            wait_s = factor * self._settings.redispatch_s
        longest = self._settings.redispatch_max_s
        rows = connection.execute(
            update(_steps)
            .where(_steps.c.id.in_(select(ids.c.id)), _UNCLAIMED)
            .values(
                dispatches=_steps.c.dispatches + 1,
                dispatch_check_at=seconds_after(case((wait_s > longest, longest), else_=wait_s)),
                drain_task_id=None,
                drain_token=None,
                drain_until=None,
            )
            .returning(*DISPATCH_COLUMNS, _steps.c.run_id, _steps.c.session_id),
        ).all()
        effects.dispatches += [dispatch_of(row, row.run_id, row.session_id) for row in rows]
        return len(rows)

    # --- dead workers and overdue attempts -----------------------------------------------------------------------------

    def _expire_attempts(self, batch: int, swept: Swept) -> None:
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
            )
            .order_by(_steps.c.due_at)
            .limit(batch)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            if self._expire(row):
                swept.lost += bool(row.lost)
                swept.timed_out += not row.lost

    def _expire(self, row: Row[*tuple[Any, ...]]) -> bool:
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

        return bool(_tried(row.run_id, partial(self._database.transact, work)))

    # --- retries -------------------------------------------------------------------------------------------------------

    def _retry(self, batch: int) -> int:
        query = (
            select(_steps.c.run_id, _steps.c.id)
            .where(
                _steps.c.due_at <= clock(),
                _steps.c.status == StepState.FAILED.value,
                _steps.c.retry_at <= clock(),
                _EXECUTING,
            )
            .order_by(_steps.c.due_at)
            .limit(batch)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        by_run: dict[str, list[str]] = {}
        for row in rows:
            by_run.setdefault(row.run_id, []).append(row.id)
        return sum(_tried(run_id, partial(self._retry_in, run_id, step_ids)) for run_id, step_ids in by_run.items())

    def _retry_in(self, run_id: str, step_ids: list[str]) -> int:
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
            places = Places(connection, unit.run, without=[row.id for row in rows])
            due = [row.id for row in rows if places.take(row)]
            retry_now(unit, self._settings, due, Cause(ENGINE, "retry"))
            unit.finish()
            return len(due)

        return self._database.transact(work)

    # --- runs ----------------------------------------------------------------------------------------------------------

    def _enter_due_runs(self, batch: int, swept: Swept) -> None:
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
            )
            .order_by(_runs.c.due_at)
            .limit(batch)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            if row.status == WorkflowState.DRAFT.value:
                swept.runs_started += _tried(row.id, partial(self._start, row.id))
            else:
                swept.runs_overdue += _tried(row.id, partial(self._overdue, row.id))

    def _start(self, run_id: str) -> bool:
        def work(connection: Connection, effects: Effects) -> bool:
            unit = UnitOfWork.lock(connection, effects, run_id, emitter=self._database.emitter)
            if unit.run.status is not WorkflowState.DRAFT:
                return False
            start_run(unit, self._settings, Cause(ENGINE, "its start time has come"))
            unit.finish()
            return True

        try:
            return self._database.transact(work)
        except GuardRefused as refusal:
            logger.info("the start of %s is put off: %s", run_id, refusal)
            self._database.transact(lambda connection, _: self._put_off(connection, run_id))
            return False

    def _put_off(self, connection: Connection, run_id: str) -> None:
        """Try a start again later: refused at each sweep, 500 of them would keep the others from being started."""
        held = (_runs.c.id == run_id, _runs.c.status == WorkflowState.DRAFT.value, _runs.c.start_at <= clock())
        later = seconds_after(self._settings.redispatch_s)
        connection.execute(update(_runs).where(*held).values(start_at=later))

    def _overdue(self, run_id: str) -> bool:
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

        return self._database.transact(work)

    def _decide_overdue(self, batch: int) -> int:
        """Decide requests whose deadline has passed by their default; those of a paused run wait with it."""
        query = (
            select(_requests.c.run_id, _requests.c.id)
            .join(_runs, _runs.c.id == _requests.c.run_id)
            .where(
                _requests.c.decision.is_(None),
                _requests.c.deadline_at <= clock(),
                _runs.c.status.in_([WorkflowState.EXECUTING.value, WorkflowState.WAITING_APPROVAL.value]),
            )
            .order_by(_requests.c.deadline_at)
            .limit(batch)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return sum(_tried(row.run_id, partial(self._decide_one, row.run_id, row.id)) for row in rows)

    def _decide_one(self, run_id: str, request_id: str) -> bool:
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

        return self._database.transact(work)

    def _revive(self, batch: int) -> int:
        """Re-advance executing workflows in which nothing runs, is due, or waits for a person: someone died half-way."""
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
            .where(_runs.c.status == WorkflowState.EXECUTING.value, ~moving)
            .order_by(_runs.c.id)
            .limit(batch)
        )
        with self._database.reading() as connection:
            ids = connection.scalars(query).all()
        return sum(_tried(run_id, partial(self._revive_one, run_id)) for run_id in ids)

    def _revive_one(self, run_id: str) -> bool:
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

        return self._database.transact(work)


def _tried(run_id: str, act: Callable[[], int]) -> int:
    """What `act` did; 0 where it cannot be done to this run, which must not keep the others from being swept."""
    try:
        return act()
    except (OperationalError, InterfaceError, PoolTimeout):
        raise  # the database is away or full: the others would fare no better
    except Exception as error:  # whatever is stored there, by whichever version
        if is_lost_connection(error):
            raise
        logger.exception("could not sweep the workflow %s", run_id)
        return 0
