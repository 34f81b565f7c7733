"""A queued message is discarded while its workflow is paused: nothing starts, fails or ends before the resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core.attempts.attempts import AttemptRef, Report
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble


@pytest.fixture
def paused(controller: WorkflowController) -> str:
    """A paused run whose only step is queued, and is to be dispatched again after a foreign revoke."""
    run_id = controller.enqueue_workflow(steps("a", on_external_revoke="redispatch"), task_description="Be discarded.")
    controller.pause_workflow(run_id)
    return run_id


def test_a_message_that_expires_while_paused_fails_nothing(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, paused: str
) -> None:
    """A paused workflow has no edge to failed; the resume sends the message again."""
    ref = worker.take("a")
    assert worker.attempts.revoked(ref, terminated=False, expired=True) is Report.STALE
    assert rows.path(paused, "a") == ["pending"]
    controller.resume_workflow(paused)
    worker.run_all()
    assert rows.run(paused).status == "completed"


def test_a_revoke_while_paused_begins_no_attempt_before_the_resume(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, paused: str
) -> None:
    """The id is burnt, so the worker discards it once more after the resume; then a new attempt begins."""
    ref = worker.take("a")
    worker.attempts.revoked(ref, terminated=False, expired=False)
    assert (rows.path(paused, "a"), worker.queued) == (["pending"], [])
    controller.resume_workflow(paused)
    again = worker.take("a")
    assert again.task_id == ref.task_id
    worker.attempts.revoked(AttemptRef(paused, ref.step_id, ref.task_id), terminated=False, expired=False)
    worker.run_all()
    assert rows.path(paused, "a") == ["pending", "running", "failed", "running", "completed"]
    assert rows.run(paused).status == "completed"
