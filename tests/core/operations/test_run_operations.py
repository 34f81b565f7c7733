"""Pausing, resuming and cancelling: what becomes of the steps, and that none is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import TransitionNotAllowed, WorkflowController
from interlock.core.errors import CommandRefused
from tests.core.edges import WORKFLOW_STATES
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")
ON = {"on_failure": "continue"}


def _enqueue(controller: WorkflowController, *plan: dict[str, object], document: object = None) -> str:
    return controller.enqueue_workflow(list(plan), task_description="x", input=document)


# failures that pause


def test_a_failure_can_pause_the_run_which_drains(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a", on_failure="pause"), step("b"), step("c"), step("d", "b"))
    worker.claim("b")
    worker.run_failing("a")
    run = rows.run(run_id)
    assert (run.status, run.pause_mode, run.paused_by) == ("paused", "drain", "engine")
    assert rows.states(run_id) == {"a": "failed", "b": "paused", "c": "pending", "d": "pending"}
    assert worker.interrupts == []
    worker.complete("b", 1)
    assert rows.states(run_id)["b"] == "paused"
    assert not worker.offer("c")[1].granted


def test_resumed_after_such_a_failure_the_run_ends_as_failed(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    """The failure counts; what waited for the step is skipped, the rest is done."""
    run_id = _enqueue(
        controller,
        step("a", on_failure="pause"),
        step("b", "a"),
        step("c", "b"),
        step("d"),
        step("e", "a", trigger="any_failed"),
    )
    worker.run_failing("a")
    controller.resume_workflow(run_id)
    assert rows.states(run_id) == {"a": "failed", "b": "skipped", "c": "skipped", "d": "pending", "e": "pending"}
    assert not sweeper.sweep()
    worker.queue = [dispatch for dispatch in worker.queue if dispatch.attempt == 1][-2:]
    worker.run_all()
    assert (rows.run(run_id).status, rows.run(run_id).error) == ("failed", "a: ValueError: no")


def test_a_condition_that_pauses_the_run_forgets_none_of_the_steps_beside_it(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(
        controller,
        step("a", **ON),
        step("before", "a", trigger="all_settled"),
        step("broken", "a", trigger="all_settled", when="abs(states.a) > `0`", on_failure="pause"),
        step("behind", "a", trigger="all_settled"),
        step("lost", "a"),
    )
    worker.run_failing("a")
    assert rows.run(run_id).status == "paused"
    assert worker.queue == []
    controller.resume_workflow(run_id)
    assert worker.queued == ["before", "behind"]
    assert rows.states(run_id)["lost"] == "skipped"
    worker.run_all()
    assert rows.run(run_id).status == "failed"


# pause, resume, cancel


@pytest.mark.parametrize(
    ("mode", "sent"),
    [("interrupt", ["soft"]), ("drain", []), ("terminate", ["terminate"])],
)
def test_pause_moves_running_steps_and_leaves_pending_ones(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    mode: str,
    sent: list[str],
) -> None:
    run_id = _enqueue(controller, step("held"), step("queued"), step("later", "held"))
    worker.claim("held")
    controller.pause_workflow(run_id, "lunch", "me", mode=mode)
    assert rows.states(run_id) == {"held": "paused", "queued": "pending", "later": "pending"}
    assert [interrupt.mode for interrupt in worker.interrupts] == sent
    ref, claim = worker.offer("queued")
    assert not claim.granted
    assert claim.reason == "the workflow is paused"
    assert not worker.attempts.claim(ref, "worker@2").granted
    assert rows.step(run_id, "queued").due_at is None
    history = rows.history(run_id)[-2:]
    assert [(row.step_key, row.to_state, row.transitioned_by) for row in history] == [
        (None, "paused", "me"),
        ("held", "paused", "me"),
    ]


def test_a_paused_run_with_nothing_left_completes_at_resume(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a"))
    worker.claim("a")
    controller.pause_workflow(run_id)
    worker.complete("a", 5)
    assert rows.run(run_id).status == "paused"
    controller.resume_workflow(run_id)
    assert (rows.run(run_id).status, rows.step(run_id, "a").result) == ("completed", 5)
    assert rows.path(run_id, "a") == ["pending", "running", "paused", "running", "completed"]
    assert worker.queue == []


def test_cancel_ends_every_unsettled_step_and_keeps_the_settled(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    retrying = {"retry": {"max_attempts": 3, "initial_delay_s": 60}}
    run_id = _enqueue(controller, step("done"), step("held"), step("retrying", **retrying), *steps("queued"))
    worker.run("done")
    worker.run_failing("retrying")
    held = worker.claim("held")
    controller.cancel_workflow(run_id, "enough", "me")
    assert rows.states(run_id) == {
        "done": "completed",
        "held": "cancelled",
        "retrying": "failed",
        "queued": "cancelled",
    }
    assert rows.run(run_id).status == "cancelled"
    assert [(interrupt.task_id, interrupt.mode) for interrupt in worker.interrupts] == [(held.task_id, "soft")]
    assert rows.history(run_id)[-1].transition_reason == "enough"
    assert not worker.offer("queued")[1].granted


def test_a_paused_run_can_be_cancelled(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = _enqueue(controller, step("held"), step("queued"))
    worker.claim("held")
    controller.pause_workflow(run_id, mode="drain")
    controller.cancel_workflow(run_id)
    assert rows.states(run_id) == {"held": "cancelled", "queued": "cancelled"}
    assert [interrupt.task_id for interrupt in worker.interrupts] == [worker.held["held"].task_id]


def _in_state(state: str, controller: WorkflowController, worker: WorkerDouble) -> str:
    """A run that got into `state` by the verbs."""
    if state == "draft":
        return controller.create_workflow("x", plan=steps("a")).id
    if state == "planning":
        run_id = controller.create_unplanned("x")
        controller.set_plan(run_id, steps("a"))
        return run_id
    plan = steps("a") if state != "waiting_approval" else [{"key": "a", "approval": True}]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    if state == "paused":
        controller.pause_workflow(run_id)
    elif state == "completed":
        worker.run("a")
    elif state == "failed":
        worker.run_failing("a")
    elif state == "cancelled":
        controller.cancel_workflow(run_id)
    return run_id


@pytest.mark.parametrize("state", WORKFLOW_STATES)
def test_every_can_agrees_with_what_the_call_does(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    state: str,
) -> None:
    """True exactly where the call succeeds; where False it raises, except cancelling again, a no-op."""
    expected = {
        "pause": state == "executing",
        "resume": state == "paused",
        "cancel": state not in ("completed", "failed", "cancelled"),
    }
    target = {"pause": "paused", "resume": "executing", "cancel": "cancelled"}
    for verb, possible in expected.items():
        run_id = _in_state(state, controller, worker)
        assert rows.run(run_id).status == state
        assert getattr(controller, f"can_{verb}")(run_id) is possible
        before = rows.history(run_id)
        if possible:
            getattr(controller, f"{verb}_workflow")(run_id, "because", "me")
            moved = next(row for row in rows.history(run_id)[len(before) :] if row.step_key is None)
            assert (moved.to_state, moved.transition_reason, moved.transitioned_by) == (target[verb], "because", "me")
            continue
        if (verb, state) == ("cancel", "cancelled"):
            controller.cancel_workflow(run_id)
        else:
            with pytest.raises(TransitionNotAllowed) as caught:
                getattr(controller, f"{verb}_workflow")(run_id)
            assert (caught.value.from_state, caught.value.to_state) == (state, target[verb])
        assert rows.history(run_id) == before


def test_an_unknown_pause_mode_is_refused(controller: WorkflowController, rows: Rows) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    with pytest.raises(CommandRefused, match="'gently' is not one of interrupt, drain, terminate") as caught:
        controller.pause_workflow(run_id, mode="gently")
    assert caught.value.code == "invalid"
    assert rows.run(run_id).status == "executing"
