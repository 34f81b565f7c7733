"""Retrying and settling one step, and what is asked while its workflow is paused. Pausing is in test_step_operations_pausing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import TransitionNotAllowed
from interlock.core.errors import CommandRefused, EntityNotFound, PayloadTooLarge
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")

BAD_CONDITION = "abs(input.text) > `0`"


def _enqueue(controller: WorkflowController, *plan: dict[str, Any], document: object = None) -> str:
    return controller.enqueue_workflow(list(plan), task_description="x", input=document)


@pytest.mark.parametrize("verb", ["retry", "settle"])
def test_those_that_wait_for_a_failed_step_wait_again_and_those_skipped_stay_skipped(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    verb: str,
) -> None:
    run_id = _enqueue(
        controller,
        step("a", on_failure="continue"),
        step("h"),
        step("skipped", "a"),
        step("after", "a h", trigger="all_settled"),
    )
    worker.run_failing("a")
    assert (rows.step(run_id, "after").open_deps, rows.step(run_id, "after").failed_deps) == (1, 1)
    if verb == "retry":
        controller.retry_step(run_id, "a", "fixed it", transitioned_by="ann")
        assert (rows.step(run_id, "after").open_deps, rows.step(run_id, "after").failed_deps) == (2, 0)
        assert rows.step(run_id, "a").completed_at is None
        worker.run("a", 42)
    else:
        controller.settle_step(run_id, "a", 42, "fixed it", transitioned_by="ann")
    row = rows.step(run_id, "after")
    assert (row.open_deps, row.unmet_deps, row.failed_deps) == (1, 0, 0)
    assert rows.path(run_id, "a")[-3:] == ["failed", "running", "completed"]
    moved = [row for row in rows.history(run_id) if row.step_key == "a" and row.from_state == "failed"]
    assert [(row.transitioned_by, row.transition_reason) for row in moved] == [("ann", "fixed it")]
    assert (rows.step(run_id, "a").result, rows.step(run_id, "a").error) == (42, None)
    worker.run_all()
    assert rows.states(run_id)["skipped"] == "skipped"
    assert rows.run(run_id).status == "completed"


def test_a_retry_by_hand_is_one_more_attempt_and_not_a_new_policy(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a", on_failure="continue"), step("h"))
    worker.run_failing("a")
    controller.retry_step(run_id, "a")
    worker.run_failing("a")
    assert (rows.states(run_id)["a"], rows.step(run_id, "a").attempt) == ("failed", 2)
    assert worker.queued == ["h"]


@pytest.mark.parametrize("verb", ["retry", "settle"])
def test_a_retry_that_is_coming_can_be_had_at_once_or_made_needless(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
    verb: str,
) -> None:
    run_id = _enqueue(controller, step("a", retry={"max_attempts": 3, "initial_delay_s": 60.0}), step("z", "a"))
    worker.run_failing("a")
    if verb == "retry":
        controller.retry_step(run_id, "a")
        worker.run("a")
    else:
        controller.settle_step(run_id, "a", None)
    assert rows.step(run_id, "a").retry_at is None
    assert not sweeper.sweep()
    worker.run_all()
    assert rows.run(run_id).status == "completed"


@pytest.mark.parametrize("intents", [("retry",), ("settle",), ("retry", "settle"), ("settle", "retry")])
def test_what_is_asked_while_paused_is_done_at_resume_and_the_last_word_counts(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    intents: tuple[str, ...],
) -> None:
    run_id = _enqueue(controller, step("a", on_failure="pause"), step("z", "a"))
    worker.run_failing("a")
    before = rows.history(run_id)
    for intent in intents:
        if intent == "retry":
            controller.retry_step(run_id, "a", "again", transitioned_by="ann")
        else:
            controller.settle_step(run_id, "a", 5, "by hand", transitioned_by="bob")
    assert rows.history(run_id) == before
    controller.resume_workflow(run_id, transitioned_by="eve")
    moved = next(row for row in rows.history(run_id) if row.step_key == "a" and row.from_state == "failed")
    if intents[-1] == "retry":
        assert (moved.transitioned_by, moved.transition_reason) == ("ann", "again")
        worker.run("a", 6)
    else:
        assert (moved.transitioned_by, moved.transition_reason) == ("bob", "by hand")
        assert rows.step(run_id, "a").result == 5
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_an_intent_is_not_lost_to_a_result_that_would_have_ended_the_run(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """The result comes first in the plan, and with it nothing is open any more."""
    run_id = _enqueue(controller, step("b"), *steps("a", "c", on_failure="pause"))
    for key in ("b", "a", "c"):
        worker.claim(key)
    worker.fail("a")
    worker.complete("b")
    worker.fail("c")
    controller.settle_step(run_id, "a", 1)
    controller.resume_workflow(run_id)  # pauses again, by the failure that came late
    assert rows.states(run_id) == {"b": "completed", "a": "completed", "c": "failed"}
    controller.retry_step(run_id, "c")
    controller.resume_workflow(run_id)
    worker.run("c")
    assert rows.run(run_id).status == "completed"


def test_several_intents_are_done_at_one_resume(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """The first of them settles the last open step; the others must not be failures that end the run."""
    policy = {"max_attempts": 1, "max_lost": 1}
    run_id = _enqueue(controller, *steps("a", "b", on_failure="pause", retry=policy), step("c", on_failure="continue"))
    for key in "abc":
        worker.claim(key)
    worker.fail("c")
    worker.fail("a")
    worker.fail("b")
    controller.resume_workflow(run_id)
    assert rows.states(run_id) == {"a": "failed", "b": "failed", "c": "failed"}
    for key in "abc":
        controller.settle_step(run_id, key, key)
    controller.resume_workflow(run_id)
    assert rows.states(run_id) == {"a": "completed", "b": "completed", "c": "completed"}
    assert rows.run(run_id).status == "completed"


@pytest.mark.parametrize("trigger", ["all_completed", "all_settled"])
@pytest.mark.parametrize("verbs", [("settle", "settle"), ("settle", "retry"), ("retry", "settle")])
def test_a_join_waits_for_every_intent_whatever_their_order(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    trigger: str,
    verbs: tuple[str, str],
) -> None:
    """What is settled first must not have the join decided by a failure that is about to be corrected as well."""
    run_id = _enqueue(controller, *steps("a", "b", on_failure="pause"), step("z", "a b", trigger=trigger))
    for key in "ab":
        worker.claim(key)
    worker.fail("a")
    worker.fail("b")
    controller.resume_workflow(run_id)
    assert rows.states(run_id) == {"a": "failed", "b": "failed", "z": "pending"}
    for verb, key in zip(verbs, "ab", strict=True):
        _ask(controller, verb, run_id, key)
    controller.resume_workflow(run_id)
    if "retry" in verbs:
        again = "ab"[verbs.index("retry")]
        assert worker.queued == [again]
        worker.run(again)
    assert worker.queued == ["z"]
    worker.run("z")
    assert rows.run(run_id).status == "completed"


def test_intents_that_a_new_pause_has_overtaken_are_done_at_the_next_resume(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, *steps("a", "b", "c", on_failure="pause"), step("z", "b c"))
    for key in "abc":
        worker.claim(key)
    worker.fail("b")
    worker.fail("a")  # late: it pauses the run again before b's turn has come
    controller.settle_step(run_id, "b", 1)
    controller.resume_workflow(run_id)
    assert (rows.run(run_id).status, rows.run(run_id).open_steps) == ("paused", 3)
    controller.settle_step(run_id, "a", 1)
    controller.resume_workflow(run_id)
    worker.complete("c")
    worker.run("z")
    assert rows.run(run_id).status == "completed"


def test_a_retry_asked_for_while_paused_is_forgotten_when_the_run_is_cancelled(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a", on_failure="pause"), step("z", "a"))
    worker.run_failing("a")
    controller.retry_step(run_id, "a")
    controller.cancel_workflow(run_id)
    assert rows.states(run_id) == {"a": "failed", "z": "cancelled"}


def test_a_step_whose_condition_failed_is_run_without_asking_it_again(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(
        controller, step("a", when=BAD_CONDITION, on_failure="continue"), step("h"), document={"text": "x"}
    )
    controller.retry_step(run_id, "a")
    assert worker.queued == ["a", "h"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


@pytest.mark.parametrize("task", [None, "tasks.g"])
def test_a_gate_whose_condition_failed_asks_when_it_is_tried_again(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    task: str | None,
) -> None:
    """It has no task to send, or one that was not approved."""
    gate = {"key": "g", "task": task, "approval": {"on_reject": "continue"}, "when": BAD_CONDITION}
    run_id = _enqueue(controller, {**gate, "on_failure": "continue"}, step("h"), document={"text": "x"})
    controller.retry_step(run_id, "g")
    assert (rows.states(run_id)["g"], worker.queued) == ("waiting_approval", ["h"])
    controller.reject_step(run_id, "g")
    assert rows.states(run_id)["g"] == "completed"
    worker.run_all()
    assert rows.run(run_id).status == "completed"


@pytest.mark.parametrize("verb", ["retry", "settle"])
def test_on_a_run_that_has_ended_the_answer_is_the_command_to_type(
    controller: WorkflowController,
    worker: WorkerDouble,
    verb: str,
) -> None:
    run_id = _enqueue(controller, *steps("a"))
    worker.run_failing("a")
    with pytest.raises(CommandRefused, match=f"interlock rerun {run_id}") as refused:
        _ask(controller, verb, run_id, "a")
    assert (refused.value.command, refused.value.code) == (verb, "terminal")


@pytest.mark.parametrize("verb", ["retry", "settle"])
@pytest.mark.parametrize("paused", [False, True])
def test_a_step_that_has_not_failed_is_neither_tried_again_nor_settled(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    verb: str,
    paused: bool,  # noqa: FBT001 - a row of the table above
) -> None:
    run_id = _enqueue(controller, *steps("a", "b"), step("z", "a b"))
    worker.run("a")
    worker.claim("b")
    if paused:
        controller.pause_workflow(run_id)
    before = rows.history(run_id)
    for key in ("a", "b", "z"):
        with pytest.raises(TransitionNotAllowed):
            _ask(controller, verb, run_id, key)
    with pytest.raises(EntityNotFound, match="nothing"):
        _ask(controller, verb, run_id, "nothing")
    assert rows.history(run_id) == before


@pytest.mark.parametrize("verb", ["retry", "settle"])
def test_while_the_run_waits_for_a_person_nothing_else_is_begun(
    controller: WorkflowController,
    worker: WorkerDouble,
    verb: str,
) -> None:
    run_id = _enqueue(controller, step("a", on_failure="continue"), {"key": "g", "approval": True})
    worker.run_failing("a")
    with pytest.raises(CommandRefused, match="waiting_approval"):
        _ask(controller, verb, run_id, "a")


def test_a_result_given_by_hand_is_measured_like_any_other(
    controller: WorkflowController, worker: WorkerDouble
) -> None:
    run_id = _enqueue(controller, step("a", on_failure="continue"), step("h"))
    worker.run_failing("a")
    with pytest.raises(PayloadTooLarge):
        controller.settle_step(run_id, "a", "x" * (1024 * 1024 + 1))


def _ask(controller: WorkflowController, verb: str, run_id: str, key: str) -> None:
    if verb == "retry":
        controller.retry_step(run_id, key)
    else:
        controller.settle_step(run_id, key, 1)
