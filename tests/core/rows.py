"""Looking at rows, and setting timers to the past: how a test makes time pass without waiting."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from sqlalchemy import delete, event, select, update

from interlock.core.database.connections import PinnedConnections, PreparedStatement
from interlock.core.database.tables import ControlCommand, RedispatchBudget, StateHistory, WorkflowRun, WorkflowStep
from interlock.core.database.types import seconds_after

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine, Row

    from interlock.core import Database

_runs, _steps, _history = WorkflowRun.__table__, WorkflowStep.__table__, StateHistory.__table__


class Rows:
    """What the tables hold, read on a connection of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def run(self, run_id: str) -> Row[Any]:
        """The run's row."""
        with self._database.reading() as connection:
            return connection.execute(select(_runs).where(_runs.c.id == run_id)).one()

    def step(self, run_id: str, key: str) -> Row[Any]:
        """A step's row."""
        with self._database.reading() as connection:
            return connection.execute(select(_steps).where(_steps.c.run_id == run_id, _steps.c.key == key)).one()

    def states(self, run_id: str) -> dict[str, str]:
        """The state of each step by its key, in plan order."""
        query = select(_steps.c.key, _steps.c.status).where(_steps.c.run_id == run_id).order_by(_steps.c.position)
        with self._database.reading() as connection:
            return {row.key: row.status for row in connection.execute(query)}

    def path(self, run_id: str, key: str | None = None) -> list[str]:
        """The states that a step, or the run itself, has been in."""
        return [row.to_state for row in self.history(run_id) if row.step_key == key]

    def history(self, run_id: str) -> list[Row[Any]]:
        """The run's history in order of `seq`."""
        query = select(_history).where(_history.c.workflow_id == run_id).order_by(_history.c.seq)
        with self._database.reading() as connection:
            return list(connection.execute(query))

    def count(self) -> tuple[int, int, int]:
        """How many runs, steps and history rows there are."""
        with self._database.reading() as connection:
            return tuple(len(connection.execute(select(table)).all()) for table in (_runs, _steps, _history))  # type: ignore[return-value]

    def set_step(self, run_id: str, key: str, **values: object) -> None:
        """Write columns of a step past every rule."""
        self._database.transact(
            lambda connection, _: connection.execute(
                update(_steps).where(_steps.c.run_id == run_id, _steps.c.key == key).values(**values),
            ),
        )

    def set_run(self, run_id: str, **values: object) -> None:
        """Write columns of a run past every rule."""
        self._database.transact(
            lambda connection, _: connection.execute(update(_runs).where(_runs.c.id == run_id).values(**values)),
        )

    def make_due(self, run_id: str, key: str, timer: str) -> None:
        """Set a step's timer to a moment ago."""
        self.set_step(run_id, key, **{timer: seconds_after(-1)})


def forget_everything(database: Database) -> None:
    """Delete every row: runs first, since history may only go after its run."""
    with database.engine.begin() as connection:
        for model in (WorkflowRun, StateHistory, ControlCommand, RedispatchBudget):
            connection.execute(delete(model))


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """Collect the statements that are sent to the database inside the block, and the names of the prepared ones."""
    statements: list[str] = []
    send_prepared = PinnedConnections.send_prepared

    def collect(*event_arguments: object) -> None:
        statements.append(str(event_arguments[2]))

    def collect_prepared(connections: PinnedConnections, statement: PreparedStatement, *rest: Any) -> Any:
        statements.append(statement.name)
        return send_prepared(connections, statement, *rest)

    event.listen(engine, "before_cursor_execute", collect)
    try:
        with patch.object(PinnedConnections, "send_prepared", collect_prepared):
            yield statements
    finally:
        event.remove(engine, "before_cursor_execute", collect)


@dataclass
class Traffic:
    """What a block of code sends to a database; a prepared statement is its own transaction."""

    statements: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    @property
    def commits(self) -> int:
        """How many transactions were committed."""
        return len(self.ends)


@contextmanager
def traffic(engine: Engine) -> Iterator[Traffic]:
    """Collect statements as `counted` does, but for SQLite's BEGIN, which is one, and commits."""
    sent = Traffic()
    send_prepared = PinnedConnections.send_prepared

    def note_prepared(connections: PinnedConnections, statement: PreparedStatement, *rest: Any) -> Any:
        pending = send_prepared(connections, statement, *rest)
        sent.ends.append(statement.name)
        return pending

    def committed(_: Connection) -> None:
        sent.ends.append("COMMIT")

    event.listen(engine, "commit", committed)
    try:
        with patch.object(PinnedConnections, "send_prepared", note_prepared), counted(engine) as sent.statements:
            yield sent
    finally:
        event.remove(engine, "commit", committed)
        sent.statements = [statement for statement in sent.statements if not statement.startswith("BEGIN")]


def steps(*keys: str, **options: object) -> list[dict[str, Any]]:
    """Plan documents of steps that wait for nothing."""
    return [step(key, **options) for key in keys]


def step(key: str, after: str = "", **options: object) -> dict[str, Any]:
    """A step's plan document; `after` is a list of keys, separated by blanks."""
    return {"key": key, "task": f"tasks.{key}", "after": after.split(), **options}
