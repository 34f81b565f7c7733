"""New attempts: their ids, and when their messages are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

INTERRUPTED = Failure("interrupted", "told to stop")


def test_resume_dispatches_pending_steps_again_with_their_ids_and_paused_ones_with_new_ones(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = controller.enqueue_workflow(steps("held", "queued"), task_description="x")
    first = worker.claim("held").task_id
    waiting = worker.take("queued").task_id
    controller.pause_workflow(run_id)
    worker.fail("held", INTERRUPTED)
    controller.resume_workflow(run_id)
    assert {dispatch.key: dispatch.task_id for dispatch in worker.queue} == {
        "held": rows.step(run_id, "held").task_id,
        "queued": waiting,
    }
    assert rows.step(run_id, "held").task_id != first
    assert rows.step(run_id, "held").failures == 0
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_an_attempt_interrupted_by_the_pause_is_replaced_once_it_has_ended(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    sweeper: Sweeper,
) -> None:
    """Resumed before that, the new attempt waits: two bodies of one step must not run at once."""
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    old = worker.claim("a")
    controller.pause_workflow(run_id)
    controller.resume_workflow(run_id)
    row = rows.step(run_id, "a")
    assert (row.status, row.attempt, row.drain_task_id) == ("running", 2, old.task_id)
    assert worker.queue == []
    assert not sweeper.sweep()
    assert worker.attempts.fail(old, INTERRUPTED) is Report.RECORDED
    assert worker.queued == ["a"]
    worker.run("a", "second")
    row = rows.step(run_id, "a")
    assert (row.status, row.result, row.failures, row.attempt) == ("completed", "second", 0, 2)


def test_an_interrupted_attempt_that_never_answers_is_replaced_when_its_lease_has_ended(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    sweeper: Sweeper,
) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    old = worker.claim("a")
    controller.pause_workflow(run_id)
    controller.resume_workflow(run_id)
    rows.make_due(run_id, "a", "dispatch_check_at")
    assert not sweeper.sweep()  # heartbeats may have renewed the lease of the old body
    rows.make_due(run_id, "a", "drain_until")
    assert sweeper.sweep().redispatched == 1
    worker.claim("a")
    assert worker.attempts.complete(old, "old") is Report.STALE
    worker.complete("a", "new")
    assert rows.step(run_id, "a").result == "new"
