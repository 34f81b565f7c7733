"""Plans that ask people, and a look at what they were asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from interlock.core.database.tables import ApprovalRequest
from interlock.core.database.types import seconds_after

if TYPE_CHECKING:
    from sqlalchemy import Row

    from interlock.core import Database, WorkflowController

_requests = ApprovalRequest.__table__


def gate(key: str = "g", after: str = "", **approval: object) -> dict[str, Any]:
    """A step that is only a decision."""
    return {"key": key, "after": after.split(), "approval": approval or True}


def enqueue(controller: WorkflowController, *plan: dict[str, Any], **head: object) -> str:
    """Start a run of these steps; `head` is what holds for all of them."""
    return controller.enqueue_workflow({"steps": list(plan), "task_description": "x", **head})


def asked(database: Database, run_id: str) -> list[Row[Any]]:
    """The run's requests, oldest first."""
    query = select(_requests).where(_requests.c.run_id == run_id).order_by(_requests.c.requested_at)
    with database.reading() as connection:
        return list(connection.execute(query))


def make_overdue(database: Database, run_id: str) -> None:
    """Set the deadlines of the run's requests to a moment ago."""
    query = update(_requests).where(_requests.c.run_id == run_id).values(deadline_at=seconds_after(-1))
    database.transact(lambda connection, _: connection.execute(query))
