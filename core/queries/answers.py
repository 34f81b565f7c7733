"""Answers questions about runs, one function each; a run that the session does not have is an error.

Each takes `session_id`, and `run_id` where the question is about a run, and only reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from interlock.core.database.tables import WorkflowRun, table_of_model
from interlock.core.errors import CommandRefused, RunNotFound

from . import status as runs
from .history import PAGE, read_changes

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from interlock.core.events import StateChange

__all__ = ["history", "list_runs", "result", "status"]

_runs = table_of_model(WorkflowRun)


def status(connection: Connection, session_id: str, run_id: str) -> dict[str, Any]:
    """The run and its steps; see `queries.status.run_status`.

    Raises:
        RunNotFound: No such run in this session.
    """
    found = runs.run_status(connection, run_id, session_id)
    if found is None:
        raise RunNotFound(run_id)
    return found


def result(connection: Connection, session_id: str, run_id: str, step: str | None = None) -> Any:
    """The result of a step, or those of all final steps by key.

    Raises:
        RunNotFound: No such run in this session.
        CommandRefused: The step has no result (yet), or does not exist.
    """
    here = select(_runs.c.id).where(_runs.c.id == run_id, _runs.c.session_id == session_id)
    if connection.scalar(here) is None:
        raise RunNotFound(run_id)
    results = runs.run_results(connection, run_id, step)
    if step is None:
        return results
    if step not in results:
        states = {each["key"]: each["status"] for each in status(connection, session_id, run_id)["steps"]}
        message = f"step {step} is {states[step]} and has no result" if step in states else f"there is no step {step!r}"
        raise CommandRefused("result", message, code="no_result")
    return results[step]


def list_runs(
    connection: Connection,
    session_id: str,
    *,
    status: str | None = None,
    name: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The session's runs, newest first, at most a page of them; None does not restrict. See `queries.status.list_runs`."""
    wanted = runs.RunFilter(
        status=status,
        name=name,
        created_after=created_after,
        created_before=created_before,
        limit=min(limit, PAGE),
    )
    return runs.list_runs(connection, session_id, wanted)


def history(
    connection: Connection, session_id: str, run_id: str, *, after_seq: int = 0, limit: int = PAGE
) -> list[StateChange]:
    """The changes of a run behind `after_seq`, in order, at most a page of them; none where the session has no such run."""
    return read_changes(connection, run_id, session_id=session_id, after_seq=after_seq, limit=min(limit, PAGE))
