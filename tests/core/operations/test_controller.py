"""`WorkflowController` as a whole: runs that are not there, and the status of one that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import (
    StateMachineError,
    WorkflowController,
)
from interlock.core.errors import RunNotFound
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")

NOBODY = "00000000-0000-0000-0000-000000000000"


def test_a_run_that_does_not_exist_is_a_value_error(controller: WorkflowController) -> None:
    for run_id in (NOBODY, "not-a-uuid", ""):
        for call in _moving_calls(controller, run_id):
            with pytest.raises(ValueError, match="no workflow run") as caught:
                call()
            assert isinstance(caught.value, RunNotFound)
            assert not isinstance(caught.value, StateMachineError)
        assert controller.get_workflow_status(run_id) is None


def _moving_calls(controller: WorkflowController, run_id: str) -> list[Callable[[], object]]:
    return [
        lambda: controller.set_plan(run_id, steps("z")),
        lambda: controller.start_workflow(run_id),
        lambda: controller.pause_workflow(run_id),
        lambda: controller.resume_workflow(run_id),
        lambda: controller.cancel_workflow(run_id),
    ]


def test_the_status_tells_everything_of_a_run(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    plan = [step("b"), step("c", "b a", trigger="all_settled"), step("a", on_failure="continue")]
    run_id = controller.enqueue_workflow(plan, task_description="x", name="n")
    worker.run("b", 1)
    worker.run_failing("a")
    worker.claim("c", "worker@9")
    status = controller.get_workflow_status(run_id)
    assert status is not None
    assert (status["run_id"], status["status"], status["task_description"]) == (run_id, "executing", "x")
    assert status["seq"] == len(rows.history(run_id))
    assert status["allowed_transitions"] == ["paused", "waiting_approval", "completed", "failed", "cancelled"]
    assert [(one["key"], one["status"]) for one in status["steps"]] == [
        ("b", "completed"),
        ("c", "running"),
        ("a", "failed"),
    ]
    assert status["steps"][1]["after"] == ["b", "a"]
    assert status["steps"][1]["claimed_by"] == "worker@9"
    assert status["steps"][2]["error"] == "ValueError: no"
    assert status["counts"] == {"completed": 1, "running": 1, "failed": 1}
    assert status["started_at"] == rows.run(run_id).started_at.isoformat()
    assert status["completed_at"] is None
    assert status["pause"] is None
    controller.pause_workflow(run_id, transitioned_by="me", mode="drain")
    paused = controller.get_workflow_status(run_id)
    assert paused is not None
    assert paused["pause"] is not None
    assert (paused["pause"]["mode"], paused["pause"]["by"], paused["pause"]["draining"]) == ("drain", "me", 1)
    worker.complete("c")
    controller.resume_workflow(run_id)
    ended = controller.get_workflow_status(run_id)
    assert ended is not None
    assert (ended["status"], ended["allowed_transitions"]) == ("completed", [])
    assert ended["completed_at"] is not None
