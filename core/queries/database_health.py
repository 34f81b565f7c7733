"""Reads what `interlock doctor` needs of the database: clock, server settings, backlog of steps, and what is overdue.

It judges nothing; `interlock.cli.doctor` does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Float, and_, case, cast, func, or_, select, text

from interlock.core.database.dialects import dialect_of
from interlock.core.database.tables import WorkflowRun, WorkflowStep, table_of_model
from interlock.core.database.types import clock, seconds_between
from interlock.core.model.states import StepState, WorkflowState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement, Connection

    from interlock.core.database.database import Database

__all__ = ["Backlog", "Server", "Work", "read_server", "read_work"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)

_CLOCK_LOOKS: Final = 3
_MOST_BACKLOGS: Final = 500
_SERVER_SETTINGS: Final = (
    "default_transaction_read_only",
    "fsync",
    "full_page_writes",
    "idle_in_transaction_session_timeout",
    "max_connections",
    "statement_timeout",
    "superuser_reserved_connections",
    "synchronous_commit",
    "transaction_timeout",
)

_EXECUTING: Final = _runs.c.status == WorkflowState.EXECUTING.value
_PENDING: Final = _steps.c.status == StepState.PENDING.value
_UNSETTLED: Final = or_(
    _steps.c.status.in_([StepState.PENDING.value, StepState.RUNNING.value]),
    and_(_steps.c.status == StepState.FAILED.value, _steps.c.retry_at.is_not(None)),
)
_QUEUED: Final = and_(
    _steps.c.dispatch_check_at.is_not(None),
    _steps.c.claim_token.is_(None),
    _steps.c.status.in_([StepState.PENDING.value, StepState.RUNNING.value]),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A database and its server.

    Attributes:
        dialect: `sqlite` or `postgresql`.
        skew_s: How far the database's clock is ahead of this machine's; negative: behind it.
        doubt_s: Uncertainty of `skew_s`: half the time that the question took.
        settings: PostgreSQL's, as they hold for this role and database; times in milliseconds. Empty for SQLite.
        is_standby: Whether it is a copy that follows another server and cannot be written to.
        connections: Clients that are connected to the server.
    """

    dialect: str
    skew_s: float
    doubt_s: float
    settings: Mapping[str, str] = field(default_factory=dict)
    is_standby: bool = False
    connections: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The unsettled steps of executing workflows that have one task and one queue.

    Attributes:
        task: The Celery task.
        queue: The queue that the plan names; None where the app's routing decides.
        steps: How many.
        queued: How many of them wait in the queue at this moment.
        timeout_s: The longest time limit among them; None where one has none.
    """

    task: str
    queue: str | None
    steps: int
    queued: int
    timeout_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What executing workflows have yet to do.

    Attributes:
        executing: Workflows that execute.
        backlogs: Their unsettled steps by task and queue; of very many kinds, the largest.
        overdue_s: For how long the oldest thing that a sweeper has to do has been due; 0 where nothing is.
    """

    executing: int
    backlogs: tuple[Backlog, ...]
    overdue_s: float


def read_server(database: Database) -> Server:
    """Ask a database for its clock and, of PostgreSQL, for the settings that decide what survives."""
    with database.reading() as connection:
        skew_s, doubt_s = min((_skew(connection) for _ in range(_CLOCK_LOOKS)), key=lambda look: look[1])
        if not dialect_of(connection).is_server:
            return Server(dialect=database.dialect, skew_s=skew_s, doubt_s=doubt_s)
        settings = connection.execute(
            text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names)"), {"names": list(_SERVER_SETTINGS)}
        ).all()
        clients = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return Server(
            dialect=database.dialect,
            skew_s=skew_s,
            doubt_s=doubt_s,
            settings={str(row.name): str(row.setting) for row in settings},
            is_standby=bool(connection.scalar(text("SELECT pg_is_in_recovery()"))),
            connections=int(connection.scalar(text(clients)) or 0),
        )


def read_work(database: Database) -> Work:
    """Count what executing workflows have yet to do, and how long ago the oldest of it was due."""
    with database.snapshot() as connection:
        executing = connection.scalar(select(func.count()).where(_EXECUTING)) or 0
        return Work(
            executing=executing,
            backlogs=tuple(_backlogs(connection)) if executing else (),
            overdue_s=max(0.0, *(float(connection.scalar(query) or 0) for query in _overdue_queries())),
        )


def _skew(connection: Connection) -> tuple[float, float]:
    before = time.time()
    there = connection.execute(select(clock())).scalar_one()
    after = time.time()
    return there.astimezone(UTC).timestamp() - (before + after) / 2, (after - before) / 2


def _backlogs(connection: Connection) -> list[Backlog]:
    queue = _steps.c.spec["queue"].as_string().label("queue")
    timeout_s = _steps.c.spec["timeout_s"].as_float()
    total = func.count()
    query = (
        select(
            _steps.c.task,
            queue,
            total.label("steps"),
            func.sum(case((_QUEUED, 1), else_=0)).label("queued"),
            case((func.count(timeout_s) == total, func.max(timeout_s))).label("timeout_s"),
        )
        .join(_runs, _runs.c.id == _steps.c.run_id)
        .where(_EXECUTING, _UNSETTLED, _steps.c.task.is_not(None))
        .group_by(_steps.c.task, queue)
        .order_by(total.desc())
        .limit(_MOST_BACKLOGS)
    )
    return [
        Backlog(task=row.task, queue=row.queue, steps=row.steps, queued=int(row.queued or 0), timeout_s=row.timeout_s)
        for row in connection.execute(query)
    ]


def _overdue_queries() -> list[Any]:
    """How long ago the oldest of each kind was due, of what a sweeper would take at once.

    Retries of runs with a limit on parallel work are left out: they may have to wait for a free place.
    """
    now = clock()
    replaceable = or_(_steps.c.drain_until.is_(None), _steps.c.drain_until <= now)
    claimed = and_(_steps.c.status == StepState.RUNNING.value, _steps.c.claim_token.is_not(None))
    unlimited = and_(_runs.c.max_parallel.is_(None), _steps.c.parent_id.is_(None))
    retried = and_(_steps.c.status == StepState.FAILED.value, unlimited)
    return [
        _oldest(_steps.c.dispatch_check_at, and_(_QUEUED, replaceable, _EXECUTING)),
        _oldest(_steps.c.lease_until, claimed),
        _oldest(_steps.c.retry_at, and_(retried, _EXECUTING)),
        select(_age(_runs.c.start_at)).where(_runs.c.status == WorkflowState.DRAFT.value),
        select(_age(_runs.c.deadline_at)).where(_EXECUTING),
    ]


def _oldest(timer: ColumnElement[Any], condition: ColumnElement[bool]) -> Any:
    return (
        select(_age(timer)).join_from(_steps, _runs, _runs.c.id == _steps.c.run_id).where(timer.is_not(None), condition)
    )


def _age(timer: ColumnElement[Any]) -> ColumnElement[float]:
    return cast(func.max(seconds_between(timer, clock())), Float)
