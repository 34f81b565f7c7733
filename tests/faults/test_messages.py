"""Messages doubled (F9), lost (F10) and late (F11), and requests to stop that reach nobody (F36): the database decides."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import psutil
import pytest
from redis import Redis

from tests.fault_plans import FaultRule, injected
from tests.faults.steps import held, step, task
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, engine_pid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.celery_worker import CeleryWorker
    from tests.faults.conftest import FaultReport, Victims
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults

ONCE = ["begin", "end"]


@pytest.fixture(scope="module")
def worker(deployment: Deployment) -> CeleryWorker:
    """A worker of the default queue; what is lost is looked for after a second."""
    return deployment.worker("messages", concurrency=1, INTERLOCK_REDISPATCH_S="1", INTERLOCK_LEASE_S="15")


# --- F9: the same message twice at once


def test_of_two_claims_at_the_same_moment_one_wins(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, tmp_path: Path
) -> None:
    """F9: both are about to write, and are let go together; the loser is ignored."""
    victim = victims(FaultRule(place="claim.commit", action="hold", times=2), concurrency=2)
    with injected(tmp_path, FaultRule(place="dispatch.publish", action="duplicate")):
        run_id = deployment.enqueue(step("a", "echo", "a", queue=victim.queue))
    victim.struck("claim.commit", times=2)
    victim.plan.release()
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    wait_until(lambda: "is not run:" in victim.worker.output, DEADLINE_S, "the other claim is refused")
    fault_report(fault="F9", injected="two claims in the same moment")
    assert deployment.moves(run_id) == ["pending", "running", "completed"]


def test_messages_that_come_three_times_run_each_body_once(
    deployment: Deployment, victims: Victims, fault_report: FaultReport
) -> None:
    """F9: two workers and three copies of each of ten messages; the losers are ignored and counted."""
    name, keys = f"copies-{uuid4().hex[:8]}", [f"s{number}" for number in range(10)]
    run_id = deployment.enqueue(*(step(key, "echo", key, queue=name) for key in keys))
    with Redis.from_url(deployment.broker.url(0)) as redis:
        wait_until(lambda: redis.llen(name) == len(keys), DEADLINE_S, "all messages are queued")
        for message in redis.lrange(name, 0, -1):
            redis.lpush(name, message, message)
        pair = [victims(concurrency=2, args=("--queues", name)).worker for _ in range(2)]
        assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        wait_until(lambda: redis.llen(name) == 0, DEADLINE_S, "all messages are taken")
    wait_until(
        lambda: sum(each.output.count("is not run:") for each in pair) >= 2 * len(keys), DEADLINE_S, "20 are ignored"
    )
    fault_report(fault="F9", injected="each message three times", runs=len(keys))
    assert all(row.attempt == 1 for row in deployment.steps(run_id).values())


def test_a_message_of_a_step_that_has_completed_is_a_no_op(
    deployment: Deployment, worker: CeleryWorker, fault_report: FaultReport
) -> None:
    """F9: long after the first."""
    run_id, _ = deployment.run(step("a", "echo", 1))
    row, seq = deployment.step(run_id), deployment.client.status(run_id)["seq"]
    header = {"run_id": run_id, "step_id": row.id, "session_id": "default", "key": "a", "attempt": row.attempt}
    deployment.app.send_task(task("echo"), args=(1,), task_id=row.task_id, headers={"interlock": header})
    wait_until(lambda: f"{row.task_id} is not run" in worker.output, DEADLINE_S, "it is refused")
    fault_report(fault="F9", injected="a message again, after its step has completed")
    assert deployment.client.status(run_id)["seq"] == seq


def test_a_message_of_a_run_that_never_was_runs_nothing(deployment: Deployment, worker: CeleryWorker) -> None:
    header = {"run_id": str(uuid4()), "step_id": str(uuid4()), "session_id": "default", "key": "a", "attempt": 1}
    forged = uuid4().hex
    deployment.app.send_task(task("echo"), task_id=forged, headers={"interlock": header}, ignore_result=True)
    wait_until(lambda: f"[{forged}] ignored" in worker.output, DEADLINE_S, "it is ignored")
    assert not [each for each in deployment.ledger.effects() if each["step_id"] == header["step_id"]]


# --- F10: the broker has lost everything


def test_when_the_broker_has_lost_everything_what_was_due_is_sent_again(
    deployment: Deployment, worker: CeleryWorker, fault_report: FaultReport, shut: str
) -> None:
    """F10: one body runs, one message waits in the worker, eight in the queue; and commands are heard as before."""
    keys = [f"s{number}" for number in range(10)]
    run_id = deployment.enqueue(*(held(key, shut, key) for key in keys))
    wait_until(lambda: deployment.ledger.count("begin"), DEADLINE_S, "one body runs")
    with Redis.from_url(deployment.broker.url(0)) as redis:
        redis.flushdb()
    flushed = time.monotonic()
    with deployment.remote_client(command_timeout_s=DEADLINE_S) as remote:
        assert remote.status(run_id)["status"] == "executing"
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=60) == "completed"
    fault_report(
        fault="F10", injected="FLUSHDB of the broker, 10 steps", runs=10, recovery_s=time.monotonic() - flushed
    )
    for row in deployment.steps(run_id).values():
        assert deployment.ledger.of(row.id) == ONCE
        assert (row.attempt, row.losses) == (1, 0)
    assert worker.running


# --- F11: an older attempt is heard after its successor


@pytest.mark.parametrize("how", ["raise", "return"])
@pytest.mark.parametrize("when", ["running", "completed"])
def test_what_an_older_attempt_says_after_its_successor_changes_nothing(
    deployment: Deployment,
    worker: CeleryWorker,
    victims: Victims,
    fault_report: FaultReport,
    shut: str,
    how: str,
    when: str,
) -> None:
    """F11: a worker is frozen for longer than its lease; its failure or result comes when the next attempt runs, or is done."""
    gates = [f"{shut}-{number}" for number in (1, 2)]
    # It may be frozen in a heartbeat: the server is to free the row that its engine has locked then.
    old = victims(INTERLOCK_LEASE_S="2", INTERLOCK_IDLE_TRANSACTION_S="2")
    run_id = deployment.enqueue(step("a", "late", gates, how, queue=old.queue))
    step_id = deployment.begun(run_id, what="try 1")["a"]
    with frozen(old.worker):
        wait_until(lambda: deployment.step(run_id).attempt == 2, DEADLINE_S, "the lease has ended")
        victims(args=("--queues", old.queue))
        deployment.ledger.wait_for(step_id, "try 2")
        if when == "completed":
            deployment.ledger.open_gate(gates[1])
            assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    thawed = time.monotonic()
    deployment.ledger.open_gate(gates[0])
    first = f"{step_id}.1"
    wait_until(lambda: f"ignored a report of attempt {first}" in old.worker.output, DEADLINE_S, "it is ignored")
    deployment.ledger.open_gate(gates[1])
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F11", injected=f"frozen, then {how}s while {when}", recovery_s=time.monotonic() - thawed)
    assert deployment.client.result(run_id, "a") == "try 2"
    assert deployment.moves(run_id) == ["pending", "running", "failed", "running", "completed"]
    assert worker.running


# --- F36: a lost revoke


def test_a_pause_that_no_worker_was_told_of_is_found_by_the_heartbeat(
    deployment: Deployment, worker: CeleryWorker, fault_report: FaultReport, shut: str, tmp_path: Path
) -> None:
    """F36: the broadcast is lost; the body is signalled within a heartbeat."""
    run_id = deployment.enqueue(held("a", shut, "done"))
    step_id = deployment.begun(run_id)["a"]
    with injected(tmp_path, FaultRule(place="interrupt.broadcast", action="drop")) as plan:
        deployment.client.pause(run_id)
        paused = time.monotonic()
        assert plan.hits("interrupt.broadcast") == 1
    deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
    fault_report(fault="F36", injected="the broadcast of a pause lost", recovery_s=time.monotonic() - paused)
    deployment.ledger.open_gate(shut)
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.step(run_id).failures == 0
    assert worker.running


def test_a_cancel_whose_engine_is_killed_before_it_tells_anyone_is_found_by_the_next_one(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F36: committed by an engine that dies with it; the body ends by the heartbeat, one deaf to it after the grace."""
    victim = victims(
        FaultRule(place="interrupt.broadcast", action="crash"), concurrency=2, INTERLOCK_CANCEL_GRACE_S="5"
    )
    keys = {"a": "hold", "b": "hard_of_hearing"}
    run_id = deployment.enqueue(
        *(step(key, name, shut, queue=victim.queue) for key, name in keys.items()),
    )
    ids = deployment.begun(run_id, list(keys))
    engines = [engine_pid(each) for each in deployment.workers if each.running]
    with deployment.remote_client(command_timeout_s=DEADLINE_S) as remote:
        remote.cancel(run_id, request_id=uuid4().hex)
    asked = time.monotonic()
    deployment.ledger.wait_for(ids["a"], "stopped by StepInterrupted")
    (pid,) = deployment.ledger.pids(ids["b"])[:1]
    wait_until(lambda: not psutil.pid_exists(pid), DEADLINE_S, "the deaf body's process is ended")
    fault_report(fault="F36", injected="the engine killed behind a cancel", recovery_s=time.monotonic() - asked)
    assert deployment.client.status(run_id)["status"] == "cancelled"
    assert all(engines)


def test_a_cancel_while_no_worker_listens_is_obeyed_by_the_one_that_comes(
    deployment: Deployment, victims: Victims, fault_report: FaultReport
) -> None:
    """F36: Celery's own revoke would be lost; the claim is refused."""
    name = f"nobody-{uuid4().hex[:8]}"
    run_id = deployment.enqueue(step("a", "echo", "a", queue=name))
    deployment.client.cancel(run_id)
    late = victims(args=("--queues", name))
    wait_until(lambda: "is not run: the workflow is cancelled" in late.worker.output, DEADLINE_S, "it is refused")
    fault_report(fault="F36", injected="a cancel while no worker listens")
    assert deployment.moves(run_id) == ["pending", "cancelled"]


def test_a_note_that_waits_for_a_workflow_delays_no_heartbeat(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """A revoke of one workflow hangs in the engine; the body of another keeps its claim beyond its lease."""
    victim = victims(FaultRule(place="revoke.commit", action="hold"), concurrency=2, INTERLOCK_LEASE_S="5")
    other = deployment.enqueue(held("a", shut, "other", queue=victim.queue))
    run_id = deployment.enqueue(held("a", shut, "revoked", queue=victim.queue))
    for each in (run_id, other):
        deployment.begun(each)
    deployment.app.control.revoke(deployment.step(run_id).task_id, terminate=True, signal="SIGUSR1")
    victim.struck("revoke.commit")
    lease = deployment.step(other).lease_until
    wait_until(
        lambda: (deployment.step(other).lease_until - lease).total_seconds() > 6,
        DEADLINE_S,
        "more than a lease's time of heartbeats",
    )
    victim.plan.release()
    deployment.wait_for_status(run_id, "cancelled", "a")
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(other, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F36", injected="a note of MAIN hangs in the engine")
    assert deployment.step(other).attempt == 1


@contextmanager
def frozen(worker: CeleryWorker) -> Iterator[None]:
    """A worker that stands still, with all its processes: a machine that was suspended."""
    pids = [worker.pid, *worker.child_pids()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
