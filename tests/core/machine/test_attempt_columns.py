"""The columns of an attempt: none of its timers outlives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import StateMachine, WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble


def test_a_step_moved_by_hand_leaves_no_timer_behind(
    controller: WorkflowController,
    step_machine: StateMachine,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """A lease that outlives what it was for would fall due for ever."""
    run_id = controller.enqueue_workflow(steps("a", "b", retry={"max_attempts": 2}), task_description="x")
    for key, target in (("a", "completed"), ("b", "paused")):
        worker.claim(key)
        step_machine.transition_to(rows.step(run_id, key).id, target)
        assert rows.step(run_id, key).due_at is None
        assert rows.step(run_id, key).claim_token is None
