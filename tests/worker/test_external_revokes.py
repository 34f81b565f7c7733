"""Revokes that are not ours (`celery control revoke`, Flower): an operator's command by another door, carried out by policy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import pytest

from interlock import Client, RetryPolicy, Step, Workflow
from tests.servers import wait_until
from tests.worker.deployment import BRIEF, BRIEF_LEASE_S, DEADLINE_S, gate, held, task_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.long

REVOKER = "celery revoke"
POLICIES = ("cancel", "pause", "redispatch")


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


@pytest.fixture(scope="module")
def narrow(deployment: Deployment) -> str:
    """The queue of a worker with one slot, behind which messages wait."""
    deployment.worker("narrow", concurrency=1, args=("--queues", "narrow"))
    return "narrow"


@pytest.fixture(scope="module")
def brief(deployment: Deployment) -> str:
    """The queue of a worker with a short lease and a short grace."""
    deployment.worker("brief", concurrency=1, args=("--queues", "brief"), **BRIEF)
    return "brief"


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def revoke(deployment: Deployment, task_id: str, **options: Any) -> None:
    """What `celery control revoke` and Flower send; returns when every worker has heard it."""
    answers = deployment.app.control.revoke(task_id, reply=True, limit=_alive(deployment), timeout=20, **options)
    assert answers is not None
    assert len(answers) == _alive(deployment)


def _alive(deployment: Deployment) -> int:
    return sum(worker.running for worker in deployment.workers)


def actors(deployment: Deployment, run_id: str, key: str = "a") -> list[tuple[str, str]]:
    """Where operators have moved a step, and which, without its first row and what workers and the engine do."""
    rows = deployment.history(run_id, key)[1:]
    return [(row.to_state, row.transitioned_by) for row in rows if row.transitioned_by in (REVOKER, "tester")]


def occupied(deployment: Deployment, queue: str, gate_name: str) -> str:
    """Occupy the only slot of a queue's worker until the gate opens; returns the run that does."""
    run_id = deployment.enqueue(held("busy", gate_name, queue=queue))
    deployment.begun(run_id, ["busy"])
    return run_id


def enqueue(deployment: Deployment, policy: str, *steps: Step) -> str:
    """Enqueue a plan with a policy for all its steps."""
    return deployment.client.enqueue(Workflow("revoked", "Show that it works.", steps, on_external_revoke=policy))


# --- queued


@pytest.mark.parametrize("policy", POLICIES)
def test_a_queued_attempt_is_revoked_by_policy(deployment: Deployment, narrow: str, shut: str, policy: str) -> None:
    """The worker is busy; when it comes to the message it throws it away, and the step moves as its policy says."""
    occupied(deployment, narrow, shut)
    echo = Step("a", task_name("echo"), ("said",), queue=narrow, on_external_revoke=policy)
    run_id = deployment.enqueue(echo, Step("b", task_name("echo"), after="a"))
    step_id = deployment.step_id(run_id)
    revoke(deployment, f"{step_id}.1")
    assert deployment.moves(run_id) == ["pending"], "nothing is known before the worker comes to the message"
    deployment.ledger.open_gate(shut)
    _ends_by_policy(deployment, run_id, policy)
    if policy == "cancel":
        assert deployment.ledger.of(step_id) == []
    else:
        assert deployment.ledger.of(step_id) == ["echo"]


def _ends_by_policy(deployment: Deployment, run_id: str, policy: str, result: Any = "said") -> None:
    """The step `a` is cancelled, paused until it is resumed, or done again; `b` waits for it."""
    if policy == "pause":
        deployment.wait_for_status(run_id, "paused", "a")
        assert deployment.client.status(run_id)["status"] == "executing"
        assert deployment.step(run_id).paused_by == REVOKER
        deployment.client.resume(run_id, "a")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    steps = deployment.steps(run_id)
    revoked = {"cancel": "cancelled", "pause": "paused", "redispatch": "failed"}[policy]
    assert (revoked, REVOKER) in actors(deployment, run_id)
    if policy == "cancel":
        assert (steps["a"].status, steps["b"].status) == ("cancelled", "skipped")
    else:
        assert (steps["a"].status, steps["b"].status) == ("completed", "completed")
        assert (steps["a"].result, steps["a"].attempt) == (result, 2)
    assert (steps["a"].failures, steps["a"].losses) == (0, 0), "a revoke counted against the step"


# --- running


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_running_attempt_is_revoked_by_policy(deployment: Deployment, shut: str, policy: str, signal: str) -> None:
    """The policy is the plan's. SIGTERM ends the process, SIGUSR1 lets the body clean up."""
    run_id = enqueue(deployment, policy, held("a", shut, "said"), Step("b", task_name("echo"), after="a"))
    step_id = deployment.begun(run_id)["a"]
    revoke(deployment, f"{step_id}.1", terminate=True, signal=signal)
    wait_until(lambda: len(actors(deployment, run_id)), DEADLINE_S, "the revoke is recorded")
    deployment.ledger.open_gate(shut)
    _ends_by_policy(deployment, run_id, policy)
    stopped = ["stopped by SoftTimeLimitExceeded"] * (signal == "SIGUSR1")
    again = ["begin", "end"] * (policy != "cancel")
    assert deployment.ledger.of(step_id) == ["begin", *stopped, *again]


def test_a_step_s_policy_wins_over_its_plan_s(deployment: Deployment, shut: str) -> None:
    run_id = enqueue(
        deployment,
        "cancel",
        held("a", shut, "said", on_external_revoke="redispatch"),
        held("c", shut, "said"),
        Step("b", task_name("echo"), after="a"),
    )
    ids = deployment.begun(run_id, ["a", "c"])
    for step_id in ids.values():
        revoke(deployment, f"{step_id}.1", terminate=True, signal="SIGTERM")
    deployment.ledger.wait_for(ids["a"], "begin", 2)
    deployment.ledger.open_gate(shut)
    _ends_by_policy(deployment, run_id, "redispatch")
    assert deployment.step(run_id, "c").status == "cancelled"


@pytest.mark.parametrize("policy", ["pause", "redispatch"])
def test_no_other_attempt_starts_while_a_revoked_body_cleans_up(deployment: Deployment, shut: str, policy: str) -> None:
    with gate(deployment, uuid4().hex) as cleanup:
        run_id = enqueue(deployment, policy, held("a", shut, cleanup, task="slow_cleanup"))
        step_id = deployment.begun(run_id)["a"]
        revoke(deployment, f"{step_id}.1", terminate=True, signal="SIGUSR1")
        deployment.ledger.wait_for(step_id, "cleaning")
        wait_until(lambda: actors(deployment, run_id), DEADLINE_S, "the revoke is recorded")
        if policy == "pause":
            deployment.client.resume(run_id, "a")
        # A probe that comes behind in the same queue is done, so an attempt that was dispatched would have begun.
        assert deployment.run(Step("probe", task_name("add"), (1, 2)))[1] == "completed"
        assert deployment.ledger.of(step_id) == ["begin", "cleaning"]
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.ledger.of(step_id) == ["begin", "cleaning", "clean", "begin"]


def test_however_long_a_revoked_body_cleans_up_no_other_attempt_starts(
    deployment: Deployment, brief: str, shut: str
) -> None:
    """Celery forgets what it has revoked; the heartbeat still speaks for the body, beyond its lease."""
    with gate(deployment, uuid4().hex) as cleanup:
        run_id = enqueue(deployment, "redispatch", held("a", shut, cleanup, task="slow_cleanup", queue=brief))
        step_id = deployment.begun(run_id)["a"]
        revoke(deployment, f"{step_id}.1", terminate=True, signal="SIGUSR1")
        wait_until(lambda: deployment.step(run_id).drain_until, DEADLINE_S, "the revoke is recorded")
        since = deployment.step(run_id).drain_until
        wait_until(
            lambda: (deployment.step(run_id).drain_until - since).total_seconds() > BRIEF_LEASE_S + 1,
            DEADLINE_S,
            "its lease is renewed",
        )
        assert deployment.ledger.of(step_id) == ["begin", "cleaning"]
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.ledger.of(step_id) == ["begin", "cleaning", "clean", "begin"]


def test_a_body_deaf_to_a_revoke_is_ended_after_the_grace(deployment: Deployment, brief: str, shut: str) -> None:
    run_id = enqueue(deployment, "cancel", held("a", shut, task="hard_of_hearing", queue=brief))
    step_id = deployment.begun(run_id)["a"]
    (pid,) = deployment.ledger.pids(step_id)
    revoke(deployment, f"{step_id}.1", terminate=True, signal="SIGUSR1")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    wait_until(lambda: not psutil.pid_exists(pid), DEADLINE_S, "its process is ended")
    assert actors(deployment, run_id) == [("cancelled", REVOKER)]


def test_a_revoked_body_that_finishes_all_the_same_keeps_its_result(deployment: Deployment, shut: str) -> None:
    run_id = enqueue(deployment, "pause", held("a", shut, "late", task="finish_anyway"))
    step_id = deployment.begun(run_id)["a"]
    revoke(deployment, f"{step_id}.1", terminate=True, signal="SIGUSR1")
    wait_until(lambda: deployment.step(run_id).late or deployment.step(run_id).result, DEADLINE_S, "the result is kept")
    if deployment.step(run_id).status == "paused":
        deployment.client.resume(run_id, "a")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"a": "late"}
    assert deployment.ledger.of(step_id) == ["begin", "hurried"]


def test_a_revoke_before_the_time_limit_is_no_timeout(deployment: Deployment, shut: str) -> None:
    run_id = enqueue(deployment, "cancel", held("a", shut, timeout_s=60))
    step_id = deployment.begun(run_id)["a"]
    revoke(deployment, f"{step_id}.1", terminate=True, signal="SIGUSR1")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert actors(deployment, run_id) == [("cancelled", REVOKER)]
    assert deployment.moves(run_id) == ["pending", "running", "cancelled"]


# --- what is no revoke of a live attempt


@pytest.mark.parametrize(
    "options", [{}, {"terminate": True, "signal": "SIGTERM"}, {"terminate": True, "signal": "SIGUSR1"}]
)
def test_the_id_of_an_old_attempt_changes_nothing(deployment: Deployment, shut: str, options: dict[str, Any]) -> None:
    run_id = deployment.enqueue(held("a", shut, "said"))
    step_id = deployment.begun(run_id)["a"]
    deployment.client.pause(run_id)
    deployment.client.resume(run_id)
    deployment.ledger.wait_for(step_id, "begin", 2)
    before = len(deployment.history(run_id))
    revoke(deployment, f"{step_id}.1", **options)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert [row.to_state for row in deployment.history(run_id)[before:]] == ["completed", "completed"]
    assert deployment.ledger.of(step_id).count("begin") == 2


def test_a_revoke_without_terminate_lets_a_running_body_finish(deployment: Deployment, shut: str) -> None:
    """Celery's own meaning of it: only what has not started is thrown away."""
    run_id = deployment.enqueue(held("a", shut, "said"))
    step_id = deployment.begun(run_id)["a"]
    revoke(deployment, f"{step_id}.1")
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"a": "said"}


@pytest.mark.parametrize("task", ["hold", "hard_of_hearing"])
@pytest.mark.parametrize("mode", ["interrupt", "terminate"])
def test_our_own_interrupts_are_not_taken_for_revokes(
    deployment: Deployment, brief: str, shut: str, task: str, mode: str
) -> None:
    run_id = deployment.enqueue(held("a", shut, task=task, queue=brief))
    deployment.begun(run_id)
    if mode == "terminate":
        deployment.client.pause(run_id, mode="terminate")
        wait_until(lambda: deployment.client.status(run_id)["pause"]["draining"] == 0, DEADLINE_S, "it is ended")
        deployment.client.resume(run_id)
        deployment.ledger.wait_for(deployment.step_id(run_id), "begin", 2)
    deployment.client.cancel(run_id)
    wait_until(
        lambda: deployment.step(run_id).drain_token is None, DEADLINE_S, "its body is ended, softly or after the grace"
    )
    assert REVOKER not in {row.transitioned_by for row in deployment.history(run_id)}


def test_a_process_lost_after_a_revoke_is_lost_and_not_revoked(deployment: Deployment, narrow: str, shut: str) -> None:
    """Celery marks a process that has survived a revoke, and takes its later death for another one."""
    first = enqueue(deployment, "cancel", held("a", shut, queue=narrow))
    step_id = deployment.begun(first)["a"]
    revoke(deployment, f"{step_id}.1", terminate=True, signal="SIGUSR1")
    deployment.ledger.wait_for(step_id, "stopped by SoftTimeLimitExceeded")
    policy = RetryPolicy(initial_delay_s=0.01)
    run_id, status = deployment.run(Step("a", task_name("dies"), (1,), queue=narrow, retry=policy))
    dead, _ = deployment.ledger.pids(deployment.step_id(run_id))
    assert deployment.ledger.pids(step_id)[0] == dead, "it was the process that had been revoked"
    assert status == "completed"
    assert deployment.step(run_id).losses == 1
    assert deployment.history(run_id, "a")[2].transition_reason == "worker lost"


# --- expired messages


def _expired(deployment: Deployment, narrow: str, shut: str, **options: Any) -> str:
    """A step whose first message expires while the only slot is taken."""
    expires_s = 0.5
    occupied(deployment, narrow, shut)
    echo = Step("a", task_name("echo"), ("said",), queue=narrow, options={"expires": expires_s}, **options)
    # Nobody sends it again before the slot is free, however long that takes.
    with Client(deployment.producer_app(interlock_redispatch_s=DEADLINE_S), actor="tester") as client:
        run_id = client.enqueue(Workflow("expires", "Show that it works.", [echo]))
    sent_at = time.monotonic()
    wait_until(lambda: time.monotonic() > sent_at + 2 * expires_s, DEADLINE_S, "the message expires")
    deployment.ledger.open_gate(shut)
    return run_id


def test_an_expired_message_is_a_failure(deployment: Deployment, narrow: str, shut: str) -> None:
    run_id = _expired(deployment, narrow, shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "failed"
    assert deployment.step(run_id).error == "the message expired"
    assert deployment.moves(run_id) == ["pending", "running", "failed"]
    assert deployment.ledger.of(deployment.step_id(run_id)) == []


def test_an_expired_message_is_sent_again_by_policy(deployment: Deployment, narrow: str, shut: str) -> None:
    policy = RetryPolicy(max_attempts=10, initial_delay_s=0.05, jitter=0)
    run_id = _expired(deployment, narrow, shut, retry=policy)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.moves(run_id)[:4] == ["pending", "running", "failed", "running"]
    assert deployment.step(run_id).failures >= 1
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["echo"]
