"""The process that runs a step is killed at each commit, publish and acknowledgement of its life: F1 to F5."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Literal

import pytest

from tests.fault_plans import FaultRule
from tests.faults.steps import held, step
from tests.servers import ROOT, wait_until
from tests.worker.deployment import DEADLINE_S

if TYPE_CHECKING:
    from tests.faults.conftest import FaultPlans, FaultReport, Victims
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults

CRASHED_TWICE = ["pending", "running", "failed", "running", "completed"]


def _bodies(deployment: Deployment, run_id: str, key: str = "a") -> list[tuple[str, str]]:
    """What the bodies of a step did: the attempt's ordinal and begin, end or raise."""
    step_id = deployment.step_id(run_id, key)
    return [
        (each["task_id"].rpartition(".")[2], each["what"])
        for each in deployment.ledger.effects()
        if each["step_id"] == step_id
    ]


def test_killed_before_the_claim_commits_the_step_stays_pending_and_runs_later(
    deployment: Deployment, victims: Victims, fault_report: FaultReport
) -> None:
    """F1: nothing of the dead try is in the history; the sweeper sends the message again, under the same id."""
    victim = victims(FaultRule(place="claim.commit", action="crash"))
    run_id = deployment.enqueue(step("a", "echo", "a", queue=victim.queue))
    struck = victim.struck("claim.commit")
    assert deployment.step(run_id).status == "pending"
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F1", injected="kill -9 at claim.commit", recovery_s=time.monotonic() - struck)
    assert deployment.moves(run_id) == ["pending", "running", "completed"]
    assert _bodies(deployment, run_id) == [("1", "begin"), ("1", "end")]
    assert deployment.step(run_id).dispatches >= 2


@pytest.mark.parametrize("place", ["claim.sent", "claim.committed", "body.begin"])
def test_killed_behind_the_claim_and_before_the_body_the_step_is_lost_and_retried(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, place: str
) -> None:
    """F2: failed as `worker lost`, and tried again as its policy says."""
    victim = victims(FaultRule(place=place, action="crash"))
    run_id = deployment.enqueue(step("a", "echo", "a", queue=victim.queue))
    struck = victim.struck(place)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F2", injected=f"kill -9 at {place}", recovery_s=time.monotonic() - struck)
    assert deployment.moves(run_id) == CRASHED_TWICE
    assert deployment.history(run_id, "a")[2].transition_reason == "worker lost"
    assert _bodies(deployment, run_id) == [("2", "begin"), ("2", "end")]
    assert (deployment.step(run_id).losses, deployment.step(run_id).failures) == (1, 0)


@pytest.mark.parametrize("place", ["body.end", "complete.commit"])
def test_killed_behind_the_side_effect_and_before_the_completion_the_body_runs_again(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, place: str
) -> None:
    """F3: with the same idempotency key; the first result was never recorded, so nobody has seen it."""
    victim = victims(FaultRule(place=place, action="crash"))
    run_id = deployment.enqueue(
        step("a", "counts", queue=victim.queue), step("b", "echo", "b", queue=victim.queue, after=["a"])
    )
    struck = victim.struck(place)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F3", injected=f"kill -9 at {place}", recovery_s=time.monotonic() - struck)
    assert deployment.moves(run_id) == CRASHED_TWICE
    assert _bodies(deployment, run_id) == [("1", "begin"), ("1", "end"), ("2", "begin"), ("2", "end")]
    key = deployment.step_id(run_id)
    assert deployment.client.result(run_id, "a") == {"key": key, "times": 2}
    assert _bodies(deployment, run_id, "b") == [("1", "begin"), ("1", "end")]


@pytest.mark.parametrize("action", ["drop", "duplicate"])
def test_a_note_of_a_lost_process_may_be_lost_or_come_twice(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, action: Literal["drop", "duplicate"]
) -> None:
    """F2: MAIN tells the engine what it saw; without that the lease decides, and the second time it is old news."""
    victim = victims(
        FaultRule(place="body.begin", action="crash"),
        FaultRule(place="note.send", subject="ended", action=action),
        INTERLOCK_LEASE_S="2",
    )
    run_id = deployment.enqueue(step("a", "echo", "a", queue=victim.queue))
    struck = victim.struck("note.send")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F2", injected=f"kill -9, the note of it: {action}", recovery_s=time.monotonic() - struck)
    assert deployment.moves(run_id) == CRASHED_TWICE
    assert deployment.step(run_id).losses == 1


@pytest.mark.parametrize("name", ["echo_late", "echo_requeued"])
def test_killed_before_the_completion_a_step_that_is_acknowledged_late_runs_again(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, name: str
) -> None:
    """F4: where the message comes back, it is refused while the dead attempt's lease lasts; the next attempt has its own."""
    victim = victims(FaultRule(place="body.end", action="crash"), INTERLOCK_LEASE_S="2")
    run_id = deployment.enqueue(step("a", name, "a", queue=victim.queue))
    struck = victim.struck("body.end")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F4", injected=f"kill -9 at body.end, {name}", recovery_s=time.monotonic() - struck)
    assert deployment.moves(run_id) == CRASHED_TWICE
    assert _bodies(deployment, run_id) == [("1", "begin"), ("1", "end"), ("2", "begin"), ("2", "end")]


@pytest.mark.parametrize("name", ["echo_late", "echo_requeued"])
def test_killed_behind_the_completion_and_before_the_late_ack_the_redelivery_is_a_no_op(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, name: str
) -> None:
    """F4: a task that sets acks_late; with reject_on_worker_lost the same message comes back at once."""
    victim = victims(FaultRule(place="task.ack", action="crash"))
    run_id = deployment.enqueue(
        step("a", name, "a", queue=victim.queue), step("b", "echo", "b", queue=victim.queue, after=["a"])
    )
    struck = victim.struck("task.ack")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    if name == "echo_requeued":
        wait_until(lambda: "is not run:" in victim.worker.output, DEADLINE_S, "the redelivery is refused")
    fault_report(fault="F4", injected=f"kill -9 at task.ack, {name}", recovery_s=time.monotonic() - struck)
    for key in "ab":
        assert deployment.moves(run_id, key) == ["pending", "running", "completed"]
        assert _bodies(deployment, run_id, key) == [("1", "begin"), ("1", "end")]


def test_a_worker_that_dies_whole_before_the_late_ack_leaves_a_message_that_does_nothing(
    deployment: Deployment, victims: Victims, fault_report: FaultReport
) -> None:
    """F4: the broker gives the message back when its visibility timeout is over, to another worker."""
    copies = {"TEST_VISIBILITY_S": "1", "INTERLOCK_BROKER_COPIES": "true"}
    victim = victims(FaultRule(place="task.ack", action="hold"), **copies)
    run_id = deployment.enqueue(
        step("a", "echo_late", "a", queue=victim.queue), step("b", "echo", "b", queue="celery", after=["a"])
    )
    struck = victim.struck("task.ack")
    victim.worker.kill()
    successor = deployment.worker(
        f"{victim.queue}-2", concurrency=1, args=("--queues", f"{victim.queue},celery"), **copies
    )
    wait_until(lambda: "is not run: the step is completed" in successor.output, DEADLINE_S, "the message came back")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F4", injected="kill -9 of the worker at task.ack", recovery_s=time.monotonic() - struck)
    for key in "ab":
        assert _bodies(deployment, run_id, key) == [("1", "begin"), ("1", "end")]
    successor.terminate()


@pytest.mark.parametrize("place", ["complete.sent", "complete.committed", "dispatch.published"])
def test_killed_behind_the_completion_its_dependents_run_once(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, place: str
) -> None:
    """F5: what was sent is committed without its sender; the sweeper publishes what was not published."""
    victim = victims(FaultRule(place=place, action="crash"))
    run_id = deployment.enqueue(
        step("a", "echo", "a", queue=victim.queue), step("b", "echo", "b", queue=victim.queue, after=["a"])
    )
    struck = victim.struck(place)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F5", injected=f"kill -9 at {place}", recovery_s=time.monotonic() - struck)
    for key in "ab":
        assert deployment.moves(run_id, key) == ["pending", "running", "completed"]
        assert _bodies(deployment, run_id, key) == [("1", "begin"), ("1", "end")]


def test_published_twice_a_step_runs_once(deployment: Deployment, victims: Victims, fault_report: FaultReport) -> None:
    """F5: whoever publishes again after a crash does no harm."""
    victim = victims(FaultRule(place="dispatch.publish", action="duplicate", times=None), concurrency=2)
    keys = [f"s{number}" for number in range(5)]
    run_id = deployment.enqueue(
        step("first", "echo", 0, queue=victim.queue),
        *(step(key, "echo", key, queue=victim.queue, after=["first"]) for key in keys),
    )
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    wait_until(lambda: victim.worker.output.count("is not run:") >= len(keys), DEADLINE_S, "the copies are refused")
    fault_report(fault="F5", injected="dispatch.publish twice", runs=len(keys))
    for key in keys:
        assert _bodies(deployment, run_id, key) == [("1", "begin"), ("1", "end")]


@pytest.mark.parametrize("place", ["verb.committed", "dispatch.publish"])
def test_a_producer_killed_behind_its_commit_has_enqueued(
    deployment: Deployment, victims: Victims, fault_plan: FaultPlans, fault_report: FaultReport, place: str
) -> None:
    """F5: the workflow is in the database, so a sweeper publishes its first steps."""
    victim = victims()
    plan = fault_plan(FaultRule(place=place, action="crash"))
    script = (
        "import sys; from interlock import Client, Step, Workflow; from tests.faults.steps_app import app\n"
        "step = Step('a', 'tests.faults.steps_app.echo', ('a',), queue=sys.argv[1])\n"
        "Client(app).enqueue(Workflow(sys.argv[1], 'Show it.', [step]), idempotency_key=sys.argv[1])"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, victim.queue],
        cwd=ROOT,
        env={**os.environ, **deployment.environment, **plan.environment()},
        check=False,
    )
    struck = time.monotonic()
    assert killed.returncode == -signal.SIGKILL
    (run,) = deployment.client.list(name=victim.queue)
    assert deployment.client.wait(run["run_id"], timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F5", injected=f"kill -9 of a producer at {place}", recovery_s=time.monotonic() - struck)
    assert _bodies(deployment, run["run_id"]) == [("1", "begin"), ("1", "end")]


def test_killed_in_the_body_it_is_a_lost_worker_and_the_step_is_tried_again(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F3: in the middle of the side effect."""
    victim = victims()
    run_id = deployment.enqueue(held("a", shut, "done", queue=victim.queue))
    step_id = deployment.begun(run_id)["a"]
    os.kill(deployment.ledger.pids(step_id)[0], signal.SIGKILL)
    struck = time.monotonic()
    deployment.ledger.wait_for(step_id, "begin", times=2)
    fault_report(fault="F3", injected="kill -9 in the body", recovery_s=time.monotonic() - struck)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.moves(run_id) == CRASHED_TWICE
    assert _bodies(deployment, run_id) == [("1", "begin"), ("2", "begin"), ("2", "end")]
    assert deployment.history(run_id, "a")[2].transitioned_by == victim.worker.node
