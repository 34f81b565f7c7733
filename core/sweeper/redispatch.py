"""Sends dispatch messages again that may be lost: those that are due, and those that neither broker nor worker has any more.

An attempt keeps its id. No state is moved, so no run is locked: a row that was claimed meanwhile no longer matches, and the
message of one that was cancelled meanwhile is refused when a worker claims it. All processes together keep one rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, case, literal, or_, select, update

from interlock.core.backoff import Backoff
from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import clock, seconds_after
from interlock.core.machine.attempt_columns import DISPATCH_COLUMNS, dispatch_of
from interlock.core.model.states import StepState

from .redispatch_rate import RedispatchRate
from .run_kind import EXECUTING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import TypeAlias

    from sqlalchemy import ColumnElement, Connection

    from interlock.core.database.database import Database
    from interlock.core.events import Effects
    from interlock.core.settings import Settings

    FindMissing: TypeAlias = Callable[[Sequence["Unclaimed"]], Collection[str]]

__all__ = ["BATCH", "QUIET_S", "Redispatcher", "Unclaimed"]

BATCH: Final = 500
QUIET_S: Final = 2.0
"""Seconds that a message may be on its way before it is asked for. Doubled with every message of the same attempt, so that one
that is missed again and again is sent more and more rarely, whatever broker and workers answer."""

_steps = table_of_model(WorkflowStep)

_UNCLAIMED = and_(
    _steps.c.claim_token.is_(None),
    _steps.c.status.in_([StepState.PENDING.value, StepState.RUNNING.value]),
)
# The second says the same of an unclaimed attempt, and has an index.
_DUE = and_(_steps.c.dispatch_check_at <= clock(), _steps.c.due_at <= clock())
# A body that was told to stop and still sends heartbeats is waited for, however long it takes.
_REPLACEABLE = or_(_steps.c.drain_until.is_(None), _steps.c.drain_until <= clock())
_SPEC = _steps.c.spec
_QUEUE = _SPEC["queue"].as_string().label("queue")
# An exchange or a routing key leads to queues that only the broker knows.
_TO_A_QUEUE = and_(
    _SPEC["options"]["exchange"].as_string().is_(None), _SPEC["options"]["routing_key"].as_string().is_(None)
)


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """An attempt whose message was sent a while ago, and which no worker has claimed.

    Attributes:
        task_id: Its Celery id.
        dispatches: How many messages it has had.
        task: The task's name.
        queue: The queue that the plan names; None where the app's routes decide.
    """

    task_id: str
    dispatches: int
    task: str
    queue: str | None


class Redispatcher:
    """Sends messages again, no more of them than `RedispatchRate` allows."""

    def __init__(self, database: Database, settings: Settings, find_missing: FindMissing | None = None) -> None:
        """Set up one process's part.

        Args:
            database: Where.
            settings: Gives intervals and the rate.
            find_missing: Says, of attempts whose messages are out, the ids of those that neither the broker nor a worker has;
                it must not wait. Without it nothing is sent before it is due.
        """
        self._database = database
        self._settings = settings
        self._find_missing = find_missing
        self._rate = RedispatchRate(settings)

    def send_due(self, batch: int = BATCH, *, session_id: str | None = None, run_id: str | None = None) -> int:
        """Send what is due again, and no more of it than the rate allows.

        Args:
            batch: How many in one transaction.
            session_id: Given, only steps of that session.
            run_id: Given, only steps of that run, which an index finds however much is due elsewhere.

        Returns:
            How many were sent.
        """
        due = _DUE
        for column, value in ((_steps.c.session_id, session_id), (_steps.c.run_id, run_id)):
            due = due if value is None else and_(due, column == value)
        with self._database.reading() as connection:
            if connection.scalar(select(_steps.c.id).where(due, _REPLACEABLE, _UNCLAIMED, EXECUTING).limit(1)) is None:
                return 0
        return self._send(batch, due)

    def send_missing(self, batch: int = BATCH) -> int:
        """Send again what is not due yet and whose message is nowhere any more."""
        if self._find_missing is None:
            return 0
        unclaimed = self._unclaimed(2 * batch)
        missing = self._find_missing(unclaimed) if unclaimed else ()
        if not missing:
            return 0
        return self._send(batch, _steps.c.task_id.in_(missing), self._is_quiet())

    def _unclaimed(self, limit: int) -> list[Unclaimed]:
        query = (
            select(_steps.c.task_id, _steps.c.dispatches, _steps.c.task, _QUEUE)
            .where(
                _steps.c.due_at > clock(),
                self._is_quiet(),
                _UNCLAIMED,
                _steps.c.drain_token.is_(None),
                _TO_A_QUEUE,
                EXECUTING,
            )
            .order_by(_steps.c.due_at)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [Unclaimed(*row) for row in connection.execute(query)]

    def _is_quiet(self) -> ColumnElement[bool]:
        """Whether the last message was sent so long ago that it may be missed: its time is known by when it is due again."""
        sent = _steps.c.dispatches
        still_s = self._interval(self._settings.redispatch_s, sent) - self._interval(QUIET_S, sent)
        return _steps.c.dispatch_check_at <= seconds_after(still_s)

    def _interval(self, first_s: float, sent: ColumnElement[int]) -> ColumnElement[float]:
        """`first_s` doubled for each message after the first of `sent`, up to `redispatch_max_s`; not all SQLites have power()."""
        *pauses, longest_s = Backoff(first_s, self._settings.redispatch_max_s).pauses()
        steps = [(sent <= number, pause_s) for number, pause_s in enumerate(pauses, 1)]
        return case(*steps, else_=longest_s) if steps else literal(longest_s)

    def _send(self, batch: int, *which: ColumnElement[bool]) -> int:
        left = self._rate.burst  # of one call, however quickly the allowance grows again: other things are to be swept
        total = 0
        while left > 0:
            size = min(batch, left)
            sent = self._database.transact(partial(self._send_batch, size, which), "redispatch")
            total, left = total + sent, left - sent
            if sent < size:
                break
        return total

    def _send_batch(
        self, size: int, which: tuple[ColumnElement[bool], ...], connection: Connection, effects: Effects
    ) -> int:
        size = min(size, self._rate.draw(connection))
        if size <= 0:
            return 0
        # A CTE, which is evaluated once: as a subquery, PostgreSQL may run it again for each row and pass the limit.
        ids = (
            select(_steps.c.id)
            .where(*which, _REPLACEABLE, _UNCLAIMED, EXECUTING)
            .order_by(_steps.c.dispatch_check_at)
            .limit(size)
            .with_for_update(skip_locked=True)
            .cte("lost")
        )
        rows = connection.execute(
            update(_steps)
            .where(_steps.c.id.in_(select(ids.c.id)), _UNCLAIMED)
            .values(
                dispatches=_steps.c.dispatches + 1,
                dispatch_check_at=seconds_after(
                    self._interval(self._settings.redispatch_s, _steps.c.dispatches + 1),
                ),
                drain_task_id=None,
                drain_token=None,
                drain_until=None,
            )
            .returning(*DISPATCH_COLUMNS, _steps.c.run_id, _steps.c.session_id),
        ).all()
        self._rate.pay(connection, len(rows))
        effects.dispatches += [dispatch_of(row, row.run_id, row.session_id) for row in rows]
        return len(rows)
