"""Reads `state_history`: what happened to one workflow, and where the workflows of a session stand.

Only reading. `seq` is the cursor within one workflow; the history's id never is one, because ids are given before the
commit and so do not follow the order of commits across workflows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, bindparam, or_, select

from interlock.core.database.tables import StateHistory, WorkflowRun, table_of_model
from interlock.core.database.types import clock
from interlock.core.events import StateChange
from interlock.core.model.transitions import WORKFLOW_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection

    from interlock.core.database.database import Database

__all__ = ["PAGE", "HistoryReader", "RunHead", "SessionHeads", "read_changes", "read_head", "read_heads"]

PAGE: Final = 1000
"""Changes, or runs, that one answer holds at most; fewer mean that there were no more at that moment."""

_runs = table_of_model(WorkflowRun)
_history = table_of_model(StateHistory)

_CHANGES = (
    select(
        _history.c.id,
        _history.c.entity_type,
        _history.c.entity_id,
        _history.c.session_id,
        _history.c.workflow_id,
        _history.c.seq,
        _history.c.from_state,
        _history.c.to_state,
        _history.c.transition_reason,
        _history.c.transitioned_by,
        _history.c.step_key,
        _history.c.attempt,
        _history.c.created_at,
        _history.c.meta,
    )
    .where(
        _history.c.workflow_id == bindparam("workflow_id"),
        _history.c.session_id == bindparam("session_id"),
        _history.c.seq > bindparam("after_seq"),
    )
    .order_by(_history.c.seq)
    .limit(bindparam("page"))
)

_LIVE = [state.value for state in WORKFLOW_TABLE.states if not WORKFLOW_TABLE.is_terminal(state)]


@dataclass(frozen=True, slots=True)
class RunHead:
    """How far a run is.

    Attributes:
        seq: Number of its newest change.
        completed_at: When it ended, by the database's clock; None while it goes on.
    """

    seq: int
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class SessionHeads:
    """How far the runs of a session are.

    Attributes:
        at: The database's time of the reading.
        seqs: For each run that was found, the number of its newest change.
    """

    at: datetime
    seqs: Mapping[str, int]


def read_changes(
    connection: Connection,
    workflow_id: str,
    *,
    session_id: str,
    after_seq: int = 0,
    limit: int = PAGE,
) -> list[StateChange]:
    """Return the changes of one workflow behind `after_seq`, in order of `seq`.

    Args:
        connection: Only read from, by one statement.
        workflow_id: The run.
        session_id: Its session; a run of another session has no changes here.
        after_seq: The last number that is known already, 0 for none.
        limit: How many at most.
    """
    parameters = {"workflow_id": workflow_id, "session_id": session_id, "after_seq": after_seq, "page": limit}
    return [StateChange.from_row(row) for row in connection.execute(_CHANGES, parameters).mappings()]


def read_head(connection: Connection, workflow_id: str, *, session_id: str) -> RunHead | None:
    """Return how far a run is; None where the session has no such run."""
    row = connection.execute(
        select(_runs.c.seq, _runs.c.completed_at).where(_runs.c.id == workflow_id, _runs.c.session_id == session_id),
    ).one_or_none()
    return None if row is None else RunHead(seq=row.seq, completed_at=row.completed_at)


def read_heads(
    connection: Connection,
    session_id: str,
    *,
    created_after: datetime | None = None,
    ended_after: datetime | None = None,
) -> SessionHeads:
    """Return how far the runs of a session are: all that go on, and on request some that have ended.

    Args:
        connection: Only read from, by one statement.
        session_id: The session.
        created_after: Given together with `ended_after`, runs that have ended count too where they were created after
            the one and ended after the other. Both are the database's times.
        ended_after: See `created_after`.
    """
    wanted: ColumnElement[bool] = _runs.c.status.in_(_LIVE)
    if created_after is not None and ended_after is not None:
        wanted = or_(wanted, and_(_runs.c.created_at > created_after, _runs.c.completed_at > ended_after))
    # The time belongs to the statement that reads the runs, and comes even where there are none.
    now = select(clock().label("at")).subquery()
    found = connection.execute(
        select(now.c.at, _runs.c.id, _runs.c.seq)
        .select_from(now)
        .outerjoin(_runs, and_(_runs.c.session_id == session_id, wanted)),
    ).all()
    return SessionHeads(at=found[0].at, seqs={row.id: row.seq for row in found if row.id is not None})


@dataclass(frozen=True, slots=True)
class HistoryReader:
    """The readings of one session, each on a connection of its own.

    Attributes:
        database: Where to read.
        session_id: The session; nothing of another one is ever returned.
    """

    database: Database
    session_id: str

    def changes(self, workflow_id: str, after_seq: int = 0) -> list[StateChange]:
        """Return up to `PAGE` changes of a run; see `read_changes`."""
        with self.database.reading() as connection:
            return read_changes(connection, workflow_id, session_id=self.session_id, after_seq=after_seq)

    def head(self, workflow_id: str) -> RunHead | None:
        """Return how far a run is; see `read_head`."""
        with self.database.reading() as connection:
            return read_head(connection, workflow_id, session_id=self.session_id)

    def heads(self, *, created_after: datetime | None = None, ended_after: datetime | None = None) -> SessionHeads:
        """Return how far the session's runs are; see `read_heads`."""
        with self.database.reading() as connection:
            return read_heads(connection, self.session_id, created_after=created_after, ended_after=ended_after)
