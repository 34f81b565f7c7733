"""Reports of workers: who is believed, and what becomes of the step."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core.attempts.attempts import Report
from interlock.core.attempts.outcomes import Failure
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")
NO_DELAY = {"initial_delay_s": 0.0, "jitter": 0.0}
OTHER = "another-token"
ERROR = Failure("error", "ValueError: no", exception_names=("builtins.ValueError", "builtins.Exception"))


def _one(controller: WorkflowController, **options: Any) -> str:
    """A run of one step, a."""
    return controller.enqueue_workflow(steps("a", **options), task_description="x")


# reports that are not believed


@pytest.mark.parametrize("wrong", [{"token": "other"}, {"token": None}, {"task_id": "other.1"}])
def test_who_does_not_hold_the_attempt_cannot_complete_it(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
    wrong: dict[str, Any],
) -> None:
    run_id = _one(controller)
    ref = worker.claim("a")
    before = rows.step(run_id, "a")
    with caplog.at_level(logging.WARNING, "interlock.attempts"):
        assert worker.attempts.complete(replace(ref, **wrong), "forged") is Report.STALE
    assert rows.step(run_id, "a") == before
    assert "ignored a report" in caplog.text


@pytest.mark.parametrize("wrong", [{"token": "other"}, {"task_id": "other.1"}, {"token": None, "task_id": "other.1"}])
def test_who_does_not_hold_the_attempt_cannot_fail_it(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    wrong: dict[str, Any],
) -> None:
    run_id = _one(controller)
    ref = worker.claim("a")
    before = rows.step(run_id, "a")
    assert worker.attempts.fail(replace(ref, **wrong), ERROR) is Report.STALE
    assert rows.step(run_id, "a") == before


def test_a_supervisor_needs_no_token_but_a_claimed_attempt(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """A lost worker cannot speak for itself; of a queued attempt nobody can have been lost."""
    run_id = _one(controller)
    ref = replace(worker.take("a"), token=None)
    lost = Failure("worker_lost", "signal 9")
    assert worker.attempts.fail(ref, lost) is Report.STALE
    worker.attempts.claim(replace(ref, token=OTHER), "worker@1")
    assert worker.attempts.fail(ref, lost) is Report.RECORDED
    assert rows.path(run_id, "a") == ["pending", "running", "failed"]


def test_an_older_attempt_that_comes_back_late_changes_nothing(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller, retry={"max_attempts": 3, **NO_DELAY})
    old = worker.claim("a")
    worker.attempts.fail(replace(old, token=None), Failure("worker_lost", "gone"))
    rows.make_due(run_id, "a", "retry_at")
    worker.claim("a")
    assert worker.attempts.complete(old, "late") is Report.STALE
    assert worker.attempts.fail(old, ERROR) is Report.STALE
    assert rows.step(run_id, "a").status == "running"
    worker.complete("a", "right")
    assert worker.attempts.complete(old, "late") is Report.STALE
    assert rows.step(run_id, "a").result == "right"


def test_the_same_report_again_is_a_repetition(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """The first answer was lost; nothing is recorded twice."""
    run_id = controller.enqueue_workflow([step("a"), step("b", on_failure="continue")], task_description="x")
    a, b = worker.claim("a"), worker.claim("b")
    assert worker.attempts.complete(a, 1) is Report.RECORDED
    assert worker.attempts.fail(b, ERROR) is Report.RECORDED
    before = rows.history(run_id)
    assert worker.attempts.complete(a, 1) is Report.REPEATED
    assert worker.attempts.fail(b, ERROR) is Report.REPEATED
    assert rows.history(run_id) == before


def test_a_result_after_the_attempt_had_failed_is_stale_not_a_repetition(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What it says was never recorded, so there must be a line in the log."""
    run_id = _one(controller)
    worker.claim("a")
    rows.make_due(run_id, "a", "lease_until")
    assert sweeper.sweep().lost == 1
    assert rows.step(run_id, "a").status == "failed"
    with caplog.at_level(logging.WARNING, "interlock.attempts"):
        assert worker.complete("a", 1) is Report.STALE
    assert "ignored a report" in caplog.text


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_a_report_after_the_run_has_ended_changes_nothing(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    end: str,
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    a = worker.claim("a")
    if end == "cancel":
        controller.cancel_workflow(run_id)
    else:
        worker.run_failing("b")
    before = rows.history(run_id)
    assert worker.attempts.complete(a, 1) is Report.STALE
    assert worker.attempts.fail(a, ERROR) is Report.STALE
    assert rows.history(run_id) == before
    assert rows.step(run_id, "a").result is None
    assert rows.step(run_id, "a").drain_token is None  # nothing is left to wait for


# while paused


def test_a_failure_while_paused_is_kept_and_counts_at_resume(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller, retry={"max_attempts": 2, **NO_DELAY})
    worker.claim("a")
    controller.pause_workflow(run_id, mode="drain")
    assert worker.fail("a", ERROR) is Report.RECORDED
    assert (rows.step(run_id, "a").status, rows.step(run_id, "a").failures) == ("paused", 0)
    controller.resume_workflow(run_id)
    row = rows.step(run_id, "a")
    assert (row.status, row.failures, row.attempt, row.late) == ("running", 1, 2, None)
    assert worker.queued == ["a"]
    worker.run_failing("a", ERROR)
    assert rows.run(run_id).status == "failed"


def test_a_last_failure_while_paused_ends_the_run_at_resume(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b", "c"), task_description="x")
    for key in ("a", "b"):
        worker.claim(key)
    controller.pause_workflow(run_id)
    worker.fail("a", ERROR)
    worker.complete("b", 2)
    controller.resume_workflow(run_id)
    assert rows.run(run_id).status == "failed"
    assert rows.states(run_id) == {"a": "failed", "b": "cancelled", "c": "cancelled"}


def test_results_kept_while_paused_complete_the_steps_at_resume_in_one_transaction(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = controller.enqueue_workflow([step("a"), step("b"), step("c", "a b")], task_description="x")
    worker.claim("a")
    worker.claim("b")
    controller.pause_workflow(run_id)
    assert worker.complete("a", None) is Report.DEFERRED
    assert worker.complete("b", [1]) is Report.DEFERRED
    assert worker.queue == []
    worker.changes.clear()
    controller.resume_workflow(run_id)
    assert (rows.step(run_id, "a").result, rows.step(run_id, "b").result) == (None, [1])
    assert worker.queued == ["c"]
    assert [change.to_state for change in worker.changes] == ["executing", *["running", "completed"] * 2]


def test_a_kept_report_is_not_replaced_by_a_second_one(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller)
    ref = worker.claim("a")
    controller.pause_workflow(run_id)
    assert worker.attempts.complete(ref, "first") is Report.DEFERRED
    assert worker.attempts.complete(ref, "second") in (Report.REPEATED, Report.STALE)
    controller.resume_workflow(run_id)
    assert rows.step(run_id, "a").result == "first"


def test_an_interrupted_attempt_that_finishes_after_the_resume_completes_the_step(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller)
    worker.claim("a")
    controller.pause_workflow(run_id)
    controller.resume_workflow(run_id)
    assert worker.complete("a", "kept") is Report.RECORDED
    assert (rows.run(run_id).status, rows.step(run_id, "a").result) == ("completed", "kept")
    assert worker.queue == []


def test_a_drained_attempt_that_fails_after_the_resume_counts(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """Nobody stopped it, so repeating it is for its policy to decide."""
    run_id = _one(controller)
    worker.claim("a")
    controller.pause_workflow(run_id, mode="drain")
    controller.resume_workflow(run_id)
    assert worker.fail("a", ERROR) is Report.RECORDED
    assert rows.run(run_id).status == "failed"
    assert worker.queue == []


def test_paused_and_resumed_twice_the_first_body_is_still_waited_for(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller)
    old = worker.claim("a")
    for _ in range(2):
        controller.pause_workflow(run_id)
        controller.resume_workflow(run_id)
    assert rows.step(run_id, "a").drain_task_id == old.task_id
    assert worker.queue == []
    assert worker.complete("a", "done") is Report.RECORDED
    assert rows.run(run_id).status == "completed"
