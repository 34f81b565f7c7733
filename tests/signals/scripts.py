"""Runs that move as a test says: real rows and real commits, without the engine.

Used by the tests of history, events and watching, which need many changes at chosen moments.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, update

from interlock.core.database.database import Database, open_database
from interlock.core.database.tables import StateHistory, WorkflowRun
from interlock.core.database.types import clock
from interlock.core.events import Effects, StateChange
from interlock.signals.events.publisher import EventPublisher
from tests.compiled_statements import SHARED_COMPILATION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

_history = StateHistory.__table__
_runs = WorkflowRun.__table__

RUN_ID = "6a1c4a5e-0000-4000-8000-000000000001"


def change(seq: int, to_state: str = "running", *, workflow_id: str = RUN_ID, **fields: Any) -> StateChange:
    """A committed change of a step; of the run itself with `entity_type="workflow_run"`."""
    values: dict[str, Any] = {
        "entity_type": "workflow_step",
        "entity_id": workflow_id,
        "session_id": "default",
        "from_state": "pending",
        "reason": None,
        "transitioned_by": "test",
        "created_at": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "history_id": 1000 + seq,
    }
    return StateChange(seq=seq, to_state=to_state, workflow_id=workflow_id, **(values | fields))


def run_of(length: int, *, workflow_id: str = RUN_ID, **fields: Any) -> list[StateChange]:
    """The changes of a run that has ended: `length` in all."""
    end = change(length, "completed", workflow_id=workflow_id, entity_type="workflow_run", **fields)
    return [*(change(seq, workflow_id=workflow_id, **fields) for seq in range(1, length)), end]


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """An open database, disposed of at the end."""
    database = open_database(url, **SHARED_COMPILATION)
    yield database
    database.dispose()


def patient_publisher(url: str, **options: Any) -> EventPublisher:
    """A publisher that waits longer for Redis than one may: where every event is to come, a stall of the machine costs none."""
    publisher = EventPublisher(url, **options)
    publisher._timeout_s = 5.0
    publisher._line = publisher._open_line()
    return publisher


class Run:
    """A run, its row and its history; each call is a transaction of its own, with its effects after the commit."""

    def __init__(self, database: Database, session_id: str = "default") -> None:
        self.database = database
        self.session_id = session_id
        self.id = str(uuid.uuid4())
        self.changes: list[StateChange] = []
        self._transact("draft", "workflow_run", 1)

    @property
    def seqs(self) -> list[int]:
        """Numbers of all its changes."""
        return [each.seq for each in self.changes]

    def move(self, count: int = 1, **fields: Any) -> None:
        """Commit `count` changes of a step at once."""
        self._transact("running", "workflow_step", count, **fields)

    def end(self) -> None:
        """Commit its last change."""
        self._transact("completed", "workflow_run", 1)

    def _transact(self, state: str, entity_type: str, count: int, **fields: Any) -> None:
        def work(connection: Connection, effects: Effects) -> list[StateChange]:
            first = len(self.changes) + 1
            made = [self._insert(connection, seq, state, entity_type, **fields) for seq in range(first, first + count)]
            self._move_row(connection, state, made[-1].seq)
            effects.changes += made
            return made

        self.changes += self.database.transact(work)

    def _move_row(self, connection: Connection, state: str, seq: int) -> None:
        if seq == 1:
            connection.execute(
                insert(_runs).values(id=self.id, session_id=self.session_id, status=state, seq=1, created_at=clock()),
            )
            return
        moved = update(_runs).where(_runs.c.id == self.id)
        over = {"status": state, "completed_at": clock()} if state == "completed" else {}
        connection.execute(moved.values(seq=seq, **over))

    def _insert(self, connection: Connection, seq: int, state: str, entity_type: str, **fields: Any) -> StateChange:
        step = {"step_key": "a", "attempt": 1} if entity_type == "workflow_step" else {}
        values: dict[str, Any] = {
            "entity_type": entity_type,
            "entity_id": self.id,
            "session_id": self.session_id,
            "workflow_id": self.id,
            "seq": seq,
            "from_state": None if seq == 1 else "executing",
            "to_state": state,
            "transitioned_by": "test",
            **step,
            **fields,
        }
        row = connection.execute(
            insert(_history).values(**values, created_at=clock()).returning(_history.c.id, _history.c.created_at),
        ).one()
        return StateChange(**values, reason=None, history_id=row.id, created_at=row.created_at)
