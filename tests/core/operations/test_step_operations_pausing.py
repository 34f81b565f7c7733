"""Pausing and resuming one step, by itself and in a workflow that is paused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import TransitionNotAllowed
from interlock.core.attempts.attempts import Report
from interlock.core.attempts.outcomes import Failure
from interlock.core.errors import CommandRefused
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")
INTERRUPTED = Failure("interrupted", "told to stop")


def _enqueue(controller: WorkflowController, *plan: dict[str, Any], document: object = None) -> str:
    return controller.enqueue_workflow(list(plan), task_description="x", input=document)


@pytest.mark.parametrize(
    ("mode", "interrupts"),
    [("interrupt", ["soft"]), ("drain", []), ("terminate", ["terminate"])],
)
def test_one_step_can_be_paused_in_each_mode_while_the_others_go_on(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    mode: str,
    interrupts: list[str],
) -> None:
    run_id = _enqueue(controller, *steps("a", "b"), step("c", "b"))
    worker.claim("a")
    controller.pause_step(run_id, "a", "too hot", transitioned_by="ann", mode=mode)
    assert [interrupt.mode for interrupt in worker.interrupts] == interrupts
    assert rows.step(run_id, "a").paused_by == "ann"
    assert rows.history(run_id)[-1].transition_reason == "too hot"
    worker.run("b")
    worker.run("c")
    assert (rows.run(run_id).status, rows.states(run_id)["a"]) == ("executing", "paused")
    worker.fail("a", INTERRUPTED)
    controller.resume_step(run_id, "a", transitioned_by="bob")
    assert rows.step(run_id, "a").paused_by is None
    worker.run("a")
    assert rows.run(run_id).status == "completed"


def test_a_mode_that_does_not_exist_is_refused(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    run_id = _enqueue(controller, *steps("a"))
    worker.claim("a")
    with pytest.raises(CommandRefused, match="'gently' is not one of interrupt, drain, terminate"):
        controller.pause_step(run_id, "a", mode="gently")
    assert rows.states(run_id) == {"a": "running"}


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_what_a_paused_step_comes_to_counts_when_it_is_resumed(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    outcome: str,
) -> None:
    run_id = _enqueue(controller, step("a", on_failure="continue"), step("z", "a", trigger="all_settled"))
    worker.claim("a")
    controller.pause_step(run_id, "a")
    assert (worker.complete("a", 9) if outcome == "completed" else worker.fail("a")) in (
        Report.DEFERRED,
        Report.RECORDED,
    )
    assert rows.states(run_id) == {"a": "paused", "z": "pending"}
    controller.resume_step(run_id, "a")
    assert rows.states(run_id)["a"] == outcome
    assert rows.step(run_id, "a").result == (9 if outcome == "completed" else None)
    assert worker.queued == ["z"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_step_paused_by_a_person_stays_paused_when_the_workflow_is_resumed(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, *steps("a", "b"))
    worker.claim("a")
    worker.claim("b")
    controller.pause_step(run_id, "a")
    controller.pause_workflow(run_id)
    worker.complete("a", 1)
    worker.complete("b", 2)
    controller.resume_workflow(run_id)
    assert rows.states(run_id) == {"a": "paused", "b": "completed"}
    assert rows.run(run_id).status == "executing"
    controller.resume_step(run_id, "a")
    assert (rows.run(run_id).status, rows.step(run_id, "a").result) == ("completed", 1)


def test_a_step_can_be_paused_by_itself_while_its_workflow_is_paused(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, *steps("a", "b"))
    worker.claim("a")
    controller.pause_workflow(run_id)
    worker.fail("a", INTERRUPTED)
    controller.pause_step(run_id, "a", transitioned_by="ann")
    worker.queue.clear()
    controller.resume_workflow(run_id)
    assert (rows.states(run_id)["a"], worker.queued) == ("paused", ["b"])
    controller.resume_step(run_id, "a")
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_step_resumed_while_its_workflow_is_paused_goes_on_with_the_workflow(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, *steps("a"))
    worker.claim("a")
    controller.pause_step(run_id, "a")
    worker.fail("a", INTERRUPTED)
    controller.pause_workflow(run_id)
    controller.resume_step(run_id, "a")
    assert (rows.states(run_id)["a"], worker.queued) == ("paused", [])
    controller.resume_workflow(run_id)
    worker.run("a")
    assert rows.run(run_id).status == "completed"


def test_a_step_paused_with_the_workflow_is_not_resumed_alone(
    controller: WorkflowController,
    worker: WorkerDouble,
) -> None:
    run_id = _enqueue(controller, *steps("a"))
    worker.claim("a")
    controller.pause_workflow(run_id)
    with pytest.raises(CommandRefused, match="resume the workflow"):
        controller.resume_step(run_id, "a")


def test_only_a_running_step_is_paused_and_only_a_paused_one_resumed(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a"), step("z", "a"))
    for key in ("a", "z"):
        with pytest.raises(TransitionNotAllowed, match="pending → paused"):
            controller.pause_step(run_id, key)
    worker.claim("a")
    with pytest.raises(TransitionNotAllowed, match="running → running"):
        controller.resume_step(run_id, "a")
    before = rows.history(run_id)
    controller.pause_step(run_id, "a")
    controller.pause_step(run_id, "a")  # again: nothing
    assert len(rows.history(run_id)) == len(before) + 1


def test_resuming_a_workflow_in_which_only_a_step_is_paused_says_which(
    controller: WorkflowController,
    worker: WorkerDouble,
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    worker.claim("a")
    controller.pause_step(run_id, "a")
    with pytest.raises(TransitionNotAllowed, match="resume them by name: a"):
        controller.resume_workflow(run_id)
