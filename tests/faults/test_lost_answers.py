"""Commands and reports that were applied and whose answer is lost: F13."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy.exc import OperationalError

from interlock import Step, Workflow
from interlock.core.model.retry import RetryPolicy
from interlock.core.settings import Settings
from tests.fault_plans import FaultRule, injected
from tests.faults.steps import held, step, task
from tests.worker.deployment import DEADLINE_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.celery_worker import CeleryWorker
    from tests.faults.conftest import FaultReport, Victims
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def worker(deployment: Deployment) -> CeleryWorker:
    """A worker that nothing is injected into."""
    return deployment.worker("answers", concurrency=2, INTERLOCK_LEASE_S="15")


@pytest.mark.parametrize("place", ["claim.committed", "complete.committed", "fail.committed", "sweep.committed"])
def test_a_report_whose_answer_was_lost_is_made_again_and_recorded_once(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, place: str
) -> None:
    """F13: claimed, completed, failed, and moved by the sweeper: one history row each."""
    victim = victims(FaultRule(place=place, action="lose_answer"))
    later = RetryPolicy(max_attempts=2, initial_delay_s=0.2, jitter=0)
    run_id = deployment.enqueue(
        step("a", "fails_first", 1, queue=victim.queue, retry=later),
        step("b", "echo", "b", queue=victim.queue, after=["a"]),
    )
    struck = victim.struck(place)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F13", injected=f"answer lost at {place}", recovery_s=time.monotonic() - struck)
    assert deployment.moves(run_id, "a") == ["pending", "running", "failed", "running", "completed"]
    assert deployment.moves(run_id, "b") == ["pending", "running", "completed"]
    row = deployment.step(run_id)
    assert (row.attempt, row.failures, row.losses, row.result) == (2, 1, 0, 2)


def test_a_verb_whose_answer_was_lost_is_answered_when_it_is_repeated(
    deployment: Deployment, worker: CeleryWorker, fault_report: FaultReport, shut: str, tmp_path: Path
) -> None:
    """F13: the client sees a broken connection; the same request_id gets the first outcome, and nothing happens twice."""
    run_id = deployment.enqueue(held("a", shut, "done"))
    deployment.begun(run_id)
    with (
        injected(tmp_path, FaultRule(place="verb.committed", action="lose_answer")),
        pytest.raises(OperationalError, match="the connection was lost"),
    ):
        deployment.client.pause(run_id, reason="once", mode="drain", request_id="pause-once")
    deployment.client.pause(run_id, reason="once", mode="drain", request_id="pause-once")
    deployment.client.resume(run_id, request_id="resume-once")
    deployment.client.pause(run_id, reason="once", mode="drain", request_id="pause-once")
    fault_report(fault="F13", injected="answer lost at verb.committed")
    assert [row.to_state for row in deployment.history(run_id) if row.step_key is None].count("paused") == 1
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert worker.running


def test_an_enqueue_whose_answer_was_lost_has_one_run(
    deployment: Deployment, worker: CeleryWorker, fault_report: FaultReport, tmp_path: Path
) -> None:
    """F13: by its idempotency key; its first step was not published by the producer, so a sweeper does it."""
    key = uuid4().hex
    workflow = Workflow("lost-answer", "Show it.", [Step("a", task("echo"), ("a",))])
    with (
        injected(tmp_path, FaultRule(place="verb.committed", action="lose_answer")),
        pytest.raises(OperationalError),
    ):
        deployment.client.enqueue(workflow, idempotency_key=key)
    struck = time.monotonic()
    run_id = deployment.client.enqueue(workflow, idempotency_key=key)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F13", injected="answer of an enqueue lost", recovery_s=time.monotonic() - struck)
    assert len(deployment.client.list(name="lost-answer")) == 1
    assert worker.running


def test_a_command_whose_answer_the_engine_lost_is_carried_out_once(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F13: the engine takes it from the queue again, finds its outcome and answers with that."""
    prefix = f"alone-{uuid4().hex[:8]}"  # no other engine takes it
    victim = victims(FaultRule(place="verb.committed", action="lose_answer"), INTERLOCK_CHANNEL_PREFIX=prefix)
    run_id = deployment.enqueue(held("a", shut, queue=victim.queue))
    deployment.begun(run_id)
    settings = Settings.load(None, {}, command_timeout_s=DEADLINE_S, channel_prefix=prefix)
    with deployment.remote_client(settings=settings) as remote:
        remote.cancel(run_id, request_id="cancel-once")
    fault_report(fault="F13", injected="answer of a command lost in the engine")
    assert victim.plan.hits("verb.committed") == 2, "of the command, and of the look at its outcome"
    assert "is delivered again" in victim.worker.output
    assert [row.to_state for row in deployment.history(run_id) if row.step_key is None].count("cancelled") == 1
