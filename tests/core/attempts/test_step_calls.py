"""What a running body stores and asks: heard from the attempt that holds its step, and from one that is cleaning up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core.attempts.step_calls import StepCalls
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from interlock.core.settings import Settings
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

NO_DELAY = {"initial_delay_s": 0.0, "jitter": 0.0}


@pytest.fixture
def calls(database: Database, settings: Settings) -> StepCalls:
    """The product's own door."""
    return StepCalls(database, settings)


def test_a_checkpoint_is_there_for_the_next_attempt(
    controller: WorkflowController, worker: WorkerDouble, calls: StepCalls
) -> None:
    controller.enqueue_workflow(steps("a", retry={"max_attempts": 2, **NO_DELAY}), task_description="x")
    ref = worker.claim("a")
    assert calls.checkpoint(ref) is None
    assert calls.save_checkpoint(ref, {"at": 3})
    worker.fail("a")
    assert calls.checkpoint(worker.claim("a")) == {"at": 3}


def test_an_attempt_that_was_replaced_saves_nothing(
    controller: WorkflowController, worker: WorkerDouble, calls: StepCalls, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(steps("a", retry={"max_attempts": 2, **NO_DELAY}), task_description="x")
    old = worker.claim("a")
    worker.fail("a")
    worker.claim("a")
    assert not calls.save_checkpoint(old, 1)
    assert not calls.save_progress(old, {"done": 1})
    assert (rows.step(run_id, "a").checkpoint, rows.step(run_id, "a").progress) == (None, None)
    assert calls.must_stop(old)


def test_a_body_that_was_told_to_stop_may_save_while_it_cleans_up(
    controller: WorkflowController, worker: WorkerDouble, calls: StepCalls, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    ref = worker.claim("a")
    assert not calls.must_stop(ref)
    controller.pause_workflow(run_id)
    assert calls.must_stop(ref)
    assert calls.save_progress(ref, {"done": 2})
    assert rows.step(run_id, "a").progress == {"done": 2}


def test_a_question_of_an_attempt_that_does_not_hold_its_step_is_not_asked(
    controller: WorkflowController, worker: WorkerDouble, calls: StepCalls, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    ref = worker.claim("a")
    controller.pause_workflow(run_id)
    assert not calls.ask(ref, {"prompt": "May I?", "name": "approval"})
    assert rows.step(run_id, "a").status == "paused"
    assert calls.decision(ref, "approval") is None
