"""Reads runs for the checker: some at a time, in one snapshot, and of every table only the columns that are needed.

A snapshot shows each run as a commit has left it, however much is moved meanwhile. It covers some runs only, because PostgreSQL
cannot vacuum while it is open. Rows come through cursors in the order of their runs, so that only the steps of one run are in
memory. Documents stay in the database: of a plan, only the fields that decide something are read.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, String, and_, case, select, true, type_coerce

from interlock.core.attempts.external_revokes import REVOKER
from interlock.core.database.tables import (
    ApprovalRequest,
    StateHistory,
    StepDependency,
    WorkflowRun,
    WorkflowStep,
    table_of_model,
)
from interlock.core.errors import RunNotFound
from interlock.core.model.states import StepState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Row, Select

    from interlock.core.database.database import Database

__all__ = ["Batch", "Stream", "next_runs", "one_run"]

Condition = Callable[[ColumnElement[Any]], ColumnElement[bool]]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_history = table_of_model(StateHistory)
_dependencies = table_of_model(StepDependency)
_requests = table_of_model(ApprovalRequest)
_origin = _runs.alias("origin")

_BATCH_RUNS: Final = 500
_BATCH_ROWS: Final = 50_000
_FETCH: Final = 2_000


def _there(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.is_not(None).label(f"has_{column.key}")


_RUN_COLUMNS = (
    _runs.c.id,
    _runs.c.session_id,
    _runs.c.status,
    _runs.c.seq,
    _runs.c.open_steps,
    _runs.c.waiting_steps,
    _runs.c.max_parallel,
    _there(_runs.c.due_at),
    _there(_runs.c.completed_at),
    _runs.c.forked_from,
    _origin.c.session_id.label("origin_session"),
)

_STEP_COLUMNS = (
    _steps.c.run_id,
    _steps.c.id,
    _steps.c.session_id,
    _steps.c.key,
    _steps.c.parent_id,
    _steps.c.status,
    _steps.c.attempt,
    _steps.c.task_id,
    _steps.c.paused_by,
    _steps.c.open_deps,
    _steps.c.unmet_deps,
    _steps.c.failed_deps,
    _there(_steps.c.claim_token),
    _there(_steps.c.lease_until),
    _there(_steps.c.timeout_at),
    _there(_steps.c.retry_at),
    _there(_steps.c.dispatch_check_at),
    _there(_steps.c.due_at),
    _there(_steps.c.completed_at),
    _there(_steps.c.result),
    _there(_steps.c.late),
    _steps.c.spec["trigger"].as_string().label("trigger"),
    _steps.c.spec["on_failure"].as_string().label("on_failure"),
    _steps.c.spec["when"].as_string().is_not(None).label("is_conditional"),
    _steps.c.spec["map"].as_string().is_not(None).label("is_mapped"),
    _steps.c.spec["map"]["max_parallel"].as_integer().label("items_limit"),
    _steps.c.spec["each"]["max_parallel"].as_integer().label("siblings_limit"),
)

_IS_COMPLETION = and_(_history.c.to_state == StepState.COMPLETED.value, _history.c.entity_id != _history.c.workflow_id)

_HISTORY_COLUMNS = (
    _history.c.workflow_id,
    _history.c.seq,
    _history.c.id,
    # As stored: it is only compared, and parsing a million times takes longer than all the rest.
    type_coerce(_history.c.created_at, String).label("created_at"),
    _history.c.entity_type,
    _history.c.entity_id,
    _history.c.session_id,
    _history.c.from_state,
    _history.c.to_state,
    _history.c.step_key,
    _history.c.attempt,
    (_history.c.transitioned_by == REVOKER).label("by_revoker"),
    case((_IS_COMPLETION, _history.c.meta["task_id"].as_string())).label("reported_by"),
)

_DEPENDENCY_COLUMNS = (_dependencies.c.run_id, _dependencies.c.step_id, _dependencies.c.upstream_id)

_REQUEST_COLUMNS = (
    _requests.c.run_id,
    _requests.c.step_id,
    _requests.c.session_id,
    _requests.c.decision,
    _requests.c.applied,
    _there(_requests.c.decided_at),
)


class Stream:
    """Rows of one table, in the order of their runs, handed out run by run."""

    def __init__(self, name: str, rows: Iterator[Row[*tuple[Any, ...]]]) -> None:
        self.name = name
        self._groups = groupby(rows, itemgetter(0))
        self._head: tuple[str, Iterator[Row[*tuple[Any, ...]]]] | None = None

    def of(self, run_id: str) -> Iterator[Row[*tuple[Any, ...]]]:
        """The rows of a run. Ask in ascending order of the runs, and read them before you ask again."""
        head = self._peek()
        if head is None or head[0] != run_id:
            return iter(())
        self._head = None
        return head[1]

    def unclaimed(self, before: str | None) -> Iterator[tuple[str, int]]:
        """Runs before `before`, or all that are left for None, whose rows `of` was not asked for, and how many rows."""
        while (head := self._peek()) is not None and (before is None or head[0] < before):
            self._head = None
            yield head[0], sum(1 for _ in head[1])

    def _peek(self) -> tuple[str, Iterator[Row[*tuple[Any, ...]]]] | None:
        if self._head is None:
            self._head = next(self._groups, None)
        return self._head


@dataclass(frozen=True, slots=True)
class Batch:
    """Some runs with all that belongs to them, as one snapshot shows it.

    Attributes:
        runs: The runs, in ascending order of their ids.
        upto: The id up to which rows were read; None where nothing comes behind them.
        steps: Their steps.
        history: Their history.
        dependencies: The edges of their plans.
        requests: What they ask people.
    """

    runs: Sequence[Row[*tuple[Any, ...]]]
    upto: str | None
    steps: Stream
    history: Stream
    dependencies: Stream
    requests: Stream

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All of them."""
        return self.steps, self.history, self.dependencies, self.requests


@contextmanager
def one_run(database: Database, run_id: str) -> Iterator[Batch]:
    """A batch of one run; its rows can be read inside of the block.

    Raises:
        RunNotFound: There is no such run.
    """
    with database.snapshot() as connection, ExitStack() as cursors:
        runs = connection.execute(_select_runs().where(_runs.c.id == run_id)).all()
        if not runs:
            raise RunNotFound(run_id)
        yield _batch(connection, cursors, runs, None, lambda column: column == run_id)


@contextmanager
def next_runs(database: Database, after: str | None) -> Iterator[Batch]:
    """The batch behind the id `after`, or the first one; its rows can be read inside of the block."""
    with database.snapshot() as connection, ExitStack() as cursors:
        runs, upto = _next_runs(connection, after)
        yield _batch(connection, cursors, runs, upto, _between(after, upto))


def _select_runs() -> Select[*tuple[Any, ...]]:
    return (
        select(*_RUN_COLUMNS).outerjoin_from(_runs, _origin, _origin.c.id == _runs.c.forked_from).order_by(_runs.c.id)
    )


def _next_runs(connection: Connection, after: str | None) -> tuple[Sequence[Row[*tuple[Any, ...]]], str | None]:
    """The next runs, as many as have a batch's rows; and the id up to which they go, None where they are the last."""
    query = _select_runs().limit(_BATCH_RUNS)
    rows = connection.execute(query if after is None else query.where(_runs.c.id > after)).all()
    total = 0
    for count, row in enumerate(rows, start=1):
        total += row.seq
        if total >= _BATCH_ROWS:
            return rows[:count], row.id
    return rows, rows[-1].id if len(rows) == _BATCH_RUNS else None


def _between(after: str | None, upto: str | None) -> Condition:
    def condition(column: ColumnElement[Any]) -> ColumnElement[bool]:
        above = true() if after is None else column > after
        return and_(above, true() if upto is None else column <= upto)

    return condition


def _batch(
    connection: Connection,
    cursors: ExitStack,
    runs: Sequence[Row[*tuple[Any, ...]]],
    upto: str | None,
    condition: Condition,
) -> Batch:
    def stream(columns: Sequence[Any], *order: ColumnElement[Any]) -> Stream:
        query = select(*columns).where(condition(columns[0])).order_by(columns[0], *order)
        result = cursors.enter_context(connection.execute(query, execution_options={"yield_per": _FETCH}))
        return Stream(columns[0].table.name, chain.from_iterable(result.partitions()))

    return Batch(
        runs,
        upto,
        stream(_STEP_COLUMNS, _steps.c.key),
        stream(_HISTORY_COLUMNS, _history.c.seq),
        stream(_DEPENDENCY_COLUMNS),
        stream(_REQUEST_COLUMNS),
    )
