"""A run under its lock: what is written past it is found at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from interlock.core import (
    EventEmitter,
    StateMachine,
    TransitionConflict,
    WorkflowController,
    WorkflowRun,
    WorkflowStep,
)
from tests.core.rows import steps

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tests.core.rows import Rows


@pytest.mark.parametrize("kind", ["workflow_run", "workflow_step"])
def test_a_row_moved_by_code_that_takes_no_lock_is_a_conflict(
    controller: WorkflowController,
    session: Session,
    rows: Rows,
    kind: str,
) -> None:
    """Compare-and-set: between the check and the write, somebody wrote the status by hand."""
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    model = WorkflowRun if kind == "workflow_run" else WorkflowStep
    emitter = EventEmitter()
    emitter.on("state_changing", lambda _: session.execute(update(model).values(status="completed")))
    entity_id = run_id if kind == "workflow_run" else rows.step(run_id, "a").id
    before = rows.history(run_id)
    with pytest.raises(TransitionConflict) as caught:
        StateMachine(session, kind, emitter).transition_to(entity_id, "cancelled")
    assert caught.value.retryable
    assert caught.value.to_state == "cancelled"
    assert rows.history(run_id) == before
    assert (rows.run(run_id).status, rows.states(run_id)) == ("executing", {"a": "pending"})
