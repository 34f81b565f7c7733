"""The rows of the history: gapless, in order, from nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interlock.core import StateMachine, WorkflowController, WorkflowRun, WorkflowStep
from interlock.core.database.tables import new_id

if TYPE_CHECKING:
    from interlock.core import Database


def test_the_history_is_in_order_and_begins_from_nothing(
    controller: WorkflowController,
    machine: StateMachine,
) -> None:
    run = controller.create_workflow("x", transitioned_by="author")
    machine.transition_to(run.id, "planning", reason="go", transitioned_by="me", meta={"n": [1, None]})
    machine.transition_to(run.id, "cancelled")
    history = machine.get_state_history(run.id)
    assert [(row.seq, row.from_state, row.to_state) for row in history] == [
        (1, None, "draft"),
        (2, "draft", "planning"),
        (3, "planning", "cancelled"),
    ]
    assert [row.transitioned_by for row in history] == ["author", "me", "system"]
    assert (history[1].transition_reason, history[1].meta) == ("go", {"n": [1, None]})
    assert all(row.session_id == "default" and row.workflow_id == run.id for row in history)
    assert all(row.created_at.utcoffset().total_seconds() == 0 for row in history)


def test_an_entity_without_history_still_moves(
    unchecked_database: Database,
    machine: StateMachine,
    step_machine: StateMachine,
) -> None:
    """Rows from before there was a history: the first row then has the state they were in."""
    run_id, step_id = new_id(), new_id()
    with unchecked_database.session() as old:
        old.add(WorkflowRun(id=run_id, status="executing"))
        old.flush()
        old.add(WorkflowStep(id=step_id, run_id=run_id, key="a", status="running"))
    assert machine.get_state_history(run_id) == []
    assert machine.get_current_state(run_id) == "executing"
    assert "paused" in machine.get_allowed_transitions(run_id)
    assert machine.transition_to(run_id, "paused")
    assert step_machine.transition_to(step_id, "paused")
    assert [(row.seq, row.from_state) for row in machine.get_state_history(run_id)] == [(1, "executing")]
    assert [(row.seq, row.from_state) for row in step_machine.get_state_history(step_id)] == [(2, "running")]
