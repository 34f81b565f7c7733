"""Attempts that fail: what their policy, their cause and the run make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core.attempts.attempts import Report
from interlock.core.attempts.outcomes import Failure
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")

NO_DELAY = {"initial_delay_s": 0.0, "jitter": 0.0}
ERROR = Failure("error", "ValueError: no", exception_names=("builtins.ValueError", "builtins.Exception"))


def _one(controller: WorkflowController, **options: Any) -> str:
    """A run of one step, a."""
    return controller.enqueue_workflow(steps("a", **options), task_description="x")


# retries


def test_a_failure_is_retried_by_policy_after_its_delay(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    policy = {"max_attempts": 3, "initial_delay_s": 10.0, "multiplier": 3.0, "jitter": 0.0}
    run_id = _one(controller, retry=policy)
    for delay_s in (10, 30):
        worker.run_failing("a", ERROR)
        row = rows.step(run_id, "a")
        assert (row.status, row.error) == ("failed", "ValueError: no")
        failed_at = rows.history(run_id)[-1].created_at
        assert (row.retry_at - failed_at).total_seconds() == pytest.approx(delay_s, abs=0.5)
        assert not sweeper.sweep()
        rows.make_due(run_id, "a", "retry_at")
        assert sweeper.sweep().retried == 1
        assert rows.step(run_id, "a").status == "running"
    assert rows.run(run_id).open_steps == 1
    assert rows.step(run_id, "a").task_id == f"{rows.step(run_id, 'a').id}.3"
    worker.run_failing("a", ERROR)
    assert rows.run(run_id).status == "failed"
    assert rows.path(run_id, "a") == ["pending", *["running", "failed"] * 3]


def test_a_retry_without_delay_is_dispatched_in_the_same_transaction(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller, retry={"max_attempts": 2, **NO_DELAY})
    worker.run_failing("a", ERROR)
    assert worker.queued == ["a"]
    worker.run("a", 1)
    row = rows.step(run_id, "a")
    assert (row.status, row.error, row.attempt, row.failures) == ("completed", None, 2, 1)


def test_a_retry_waits_while_the_run_is_paused(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    run_id = controller.enqueue_workflow(
        steps("a", "b", retry={"max_attempts": 2, "initial_delay_s": 60.0}),
        task_description="x",
    )
    worker.run_failing("a", ERROR)
    controller.pause_workflow(run_id)
    rows.make_due(run_id, "a", "retry_at")
    assert not sweeper.sweep()
    controller.resume_workflow(run_id)
    assert sweeper.sweep().retried == 1
    assert rows.states(run_id)["a"] == "running"


def test_an_exception_that_is_not_retryable_fails_at_once(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller, retry={"max_attempts": 5, "non_retryable": ["ValueError"], **NO_DELAY})
    worker.run_failing("a", ERROR)
    assert rows.run(run_id).status == "failed"


def test_what_cannot_succeed_is_not_retried(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = _one(controller, retry={"max_attempts": 5, **NO_DELAY})
    worker.run_failing("a", Failure("unusable", "its result is not JSON"))
    assert rows.run(run_id).status == "failed"
    assert rows.step(run_id, "a").error == "its result is not JSON"


def test_lost_workers_count_against_max_lost_alone(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller, retry={"max_attempts": 1, "max_lost": 3, **NO_DELAY})
    for losses in (1, 2):
        worker.run_failing("a", Failure("worker_lost", "signal 9"))
        row = rows.step(run_id, "a")
        assert (row.losses, row.failures, row.status) == (losses, 0, "running")
    worker.run_failing("a", Failure("worker_lost", "signal 9"))
    assert rows.run(run_id).status == "failed"
    reasons = [row.transition_reason for row in rows.history(run_id) if row.step_key and row.to_state == "failed"]
    assert reasons == ["worker lost"] * 3


def test_a_shutdown_counts_against_nothing(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = _one(controller, retry={"max_attempts": 1, "max_lost": 1})
    for _ in range(5):
        worker.run_failing("a", Failure("shutdown", "warm"))
    row = rows.step(run_id, "a")
    assert (row.status, row.failures, row.losses, row.attempt) == ("running", 0, 0, 6)
    assert [r.transition_reason for r in rows.history(run_id) if r.to_state == "failed"] == ["worker shutdown"] * 5
    worker.run("a")
    assert rows.run(run_id).status == "completed"


def test_celerys_own_retry_keeps_its_countdown_and_arguments_and_counts_against_nothing(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    run_id = _one(controller)
    override = {"args": [2], "kwargs": {"b": 3}}
    worker.run_failing("a", Failure("celery_retry", "Retry in 60s", delay_s=60, override=override))
    row = rows.step(run_id, "a")
    assert (row.status, row.failures, row.celery_retries, row.override) == ("failed", 0, 1, override)
    assert rows.run(run_id).open_steps == 1
    rows.make_due(run_id, "a", "retry_at")
    assert sweeper.sweep().retried == 1
    assert (worker.queue[0].override, worker.queue[0].celery_retries) == (override, 1)
    worker.run_failing("a", Failure("celery_retry", "Retry now"))
    assert worker.queue[0].celery_retries == 2
    worker.run("a")
    assert rows.run(run_id).status == "completed"


def test_an_exception_with_any_text_can_be_recorded(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """PostgreSQL takes neither NUL nor lone surrogates; a failure that cannot be stored would look like a lost worker."""
    run_id = _one(controller)
    worker.run_failing("a", Failure("error", "OSError: a\0b\udcff é", meta={"traceback": "\0\ud800", "line": 3}))
    row, failed = rows.step(run_id, "a"), rows.history(run_id)[-2]
    assert (row.status, row.error) == ("failed", "OSError: a?b? é")
    assert (failed.meta["traceback"], failed.meta["line"]) == ("??", 3)


# what could not be dispatched


def test_an_attempt_that_cannot_be_dispatched_fails_without_a_retry(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller, retry={"max_attempts": 5, **NO_DELAY})
    ref = replace(worker.take("a"), token=None)
    assert worker.attempts.fail_unstarted(ref, "args: no such result") is Report.RECORDED
    assert rows.path(run_id, "a") == ["pending", "running", "failed"]
    assert rows.run(run_id).error == "a: args: no such result"
    assert worker.attempts.fail_unstarted(ref, "again") is not Report.RECORDED


def test_a_later_attempt_that_cannot_be_dispatched_fails_as_well(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller, retry={"max_attempts": 5, **NO_DELAY})
    worker.run_failing("a", ERROR)
    ref = replace(worker.take("a"), token=None)
    assert worker.attempts.fail_unstarted(ref, "no worker knows it") is Report.RECORDED
    assert rows.path(run_id, "a") == ["pending", *["running", "failed"] * 2]


def test_what_is_claimed_or_paused_was_dispatched(controller: WorkflowController, worker: WorkerDouble) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    a, b = worker.claim("a"), worker.take("b")
    assert worker.attempts.fail_unstarted(a, "no") is Report.STALE
    controller.pause_workflow(run_id)
    assert worker.attempts.fail_unstarted(b, "no") is Report.STALE


@pytest.mark.parametrize("paused", [False, True])
def test_texts_that_a_task_makes_are_cut_with_a_mark_wherever_they_are_stored(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, *, paused: bool
) -> None:
    """In the step, the run, the history's reasons and meta; of a traceback the end is kept. Also where they come during a pause."""
    run_id = _one(controller)
    worker.claim("a")
    if paused:
        controller.pause_workflow(run_id)
    long = "x" * 2_000_000
    worker.fail("a", Failure("error", f"ValueError: {long}", (long, "ValueError"), {"traceback": f"{long}the end"}))
    if paused:
        controller.resume_workflow(run_id)
    step = rows.step(run_id, "a")
    assert step.status == "failed"
    assert step.error.startswith("ValueError: xxx")
    assert step.error.endswith("x… cut: 2,000,012 characters …")
    assert len(step.error) < 10_100
    assert len(rows.run(run_id).error) < 10_200
    history = rows.history(run_id)
    assert max(len(row.transition_reason or "") for row in history) < 10_300
    assert max(len(str(row.meta)) for row in history) < 20_500
    if not paused:
        traceback = next(row.meta["traceback"] for row in history if "traceback" in (row.meta or {}))
        assert traceback.startswith("… cut: 2,000,007 characters …x")
        assert traceback.endswith("xthe end")


def test_a_message_that_cannot_be_made_is_cut_too(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    run_id = _one(controller)
    worker.attempts.fail_unstarted(worker.take("a"), "x" * 2_000_000)
    assert rows.step(run_id, "a").error.endswith("x… cut: 2,000,000 characters …")
    assert max(len(row.transition_reason or "") for row in rows.history(run_id)) < 10_300
