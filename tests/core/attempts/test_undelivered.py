"""Messages that workers drop because they do not know the task: sent again, and after so many refusals given up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core.attempts.attempts import AttemptRef
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


def _refused(worker: WorkerDouble, rows: Rows, run_id: str) -> bool:
    """A worker drops the step's message and says so."""
    row = rows.step(run_id, "a")
    return worker.undelivered.dropped(AttemptRef(run_id, row.id, row.task_id))


def test_it_is_refusals_that_count_and_not_how_often_it_was_sent(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    """A message that waited in a long queue has been sent many times, and is not given up at the first refusal."""
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    rows.set_step(run_id, "a", dispatches=9)
    assert [_refused(worker, rows, run_id) for _ in range(5)] == [False, False, False, False, True]


def test_a_refused_message_is_sent_again_at_once(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, sweeper: Sweeper
) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    later = rows.step(run_id, "a").dispatch_check_at
    _refused(worker, rows, run_id)
    assert rows.step(run_id, "a").dispatch_check_at < later
    rows.make_due(run_id, "a", "dispatch_check_at")
    assert sweeper.sweep().redispatched == 1
    worker.run("a")
    assert rows.run(run_id).status == "completed"


def test_each_attempt_has_its_own_refusals(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    policy = {"max_attempts": 2, "initial_delay_s": 0.0, "jitter": 0.0}
    run_id = controller.enqueue_workflow(steps("a", retry=policy), task_description="x")
    rows.set_step(run_id, "a", meta={"of the user": 1})
    for _ in range(4):
        assert not _refused(worker, rows, run_id)
    worker.run_failing("a")
    assert not _refused(worker, rows, run_id)
    assert rows.step(run_id, "a").meta["of the user"] == 1


def test_a_refusal_of_a_message_that_was_claimed_meanwhile_is_old_news(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    """It was sent twice, and the other one reached a worker that knows the task."""
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    worker.claim("a")
    assert not any(_refused(worker, rows, run_id) for _ in range(6))
    assert rows.step(run_id, "a").dispatch_check_at is None
