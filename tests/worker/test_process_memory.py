"""What a pool process keeps of steps that are over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock import Step
from interlock.core.model.retry import RetryPolicy
from tests.worker.deployment import task_name

if TYPE_CHECKING:
    from tests.worker.deployment import Deployment

FAILURES = 5
AT_ONCE = RetryPolicy(max_attempts=FAILURES, initial_delay_s=0)


@pytest.fixture(scope="module", autouse=True)
def _worker(deployment: Deployment) -> None:
    """One process, so that the next step sees what the one before has left."""
    deployment.worker("keeping", concurrency=1)


@pytest.mark.parametrize(
    ("task", "argument"), [("fail", "boom"), ("flaky", FAILURES)], ids=["failures", "retries of Celery's"]
)
def test_bodies_that_fail_leave_no_tracebacks_behind(deployment: Deployment, task: str, argument: object) -> None:
    """Each would hold some 300 kB until a full garbage collection; the pool itself keeps the last one until the next result."""
    off = Step("off", task_name("collect"), kwargs={"automatically": False})
    fails = Step("fails", task_name(task), [argument], after=off, retry=AT_ONCE, on_failure="continue")
    left = Step("left", task_name("outlived"), ["ExceptionInfo"], after=fails, trigger="all_settled")
    on = Step("on", task_name("collect"), kwargs={"automatically": True}, after=left)
    run_id, status = deployment.run(off, fails, left, on)
    assert status == "completed"
    assert deployment.moves(run_id, "fails").count("failed") >= FAILURES - 1
    assert deployment.step(run_id, "left").result <= 1
