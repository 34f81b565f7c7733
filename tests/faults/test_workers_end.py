"""Whole workers end while bodies run: killed (F6), or asked to shut down, warmly, coldly or softly (F7)."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
from redis import Redis

from tests.celery_worker import CeleryWorker
from tests.fault_plans import FaultRule
from tests.faults.conftest import LONG_LEASE_S
from tests.faults.steps import held, step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S

if TYPE_CHECKING:
    from tests.faults.conftest import FaultPlans, FaultReport, Victims
    from tests.faults.soundness import Soundness
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def survivor(deployment: Deployment) -> CeleryWorker:
    """The worker that nobody touches."""
    return deployment.worker("survivor", concurrency=2, INTERLOCK_LEASE_S=LONG_LEASE_S)


def test_another_worker_finishes_what_a_killed_one_held(
    deployment: Deployment, survivor: CeleryWorker, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F6: SIGKILL of MAIN while its bodies run: the survivor's sweeper retries them when their leases end; no one intervenes."""
    victim = victims(concurrency=2, args=("--queues", "celery"), INTERLOCK_LEASE_S="5")
    keys = [f"s{number}" for number in range(6)]
    run_id = deployment.enqueue(*(held(key, shut, key) for key in keys))
    wait_until(lambda: len(_held_by(deployment, run_id, victim.worker)) == 2, DEADLINE_S, "the victim holds two bodies")
    lost = _held_by(deployment, run_id, victim.worker)
    victim.worker.kill()
    killed = time.monotonic()
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F6", injected="kill -9 of MAIN, 2 bodies", recovery_s=time.monotonic() - killed)
    for key, row in deployment.steps(run_id).items():
        assert deployment.moves(run_id, key).count("failed") == row.losses == (key in lost)
        assert deployment.ledger.of(row.id) == ["begin"] * (key in lost) + ["begin", "end"]
    reasons = {row.transition_reason for row in deployment.history(run_id, lost[0]) if row.to_state == "failed"}
    assert reasons == {"worker lost"}
    assert survivor.running


def test_a_warm_shutdown_waits_for_bodies_longer_than_the_lease_and_gives_back_what_waits(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F7: SIGTERM: the body goes on for longer than the lease, its result counts; a prefetched message goes to another worker."""
    victim = victims(INTERLOCK_LEASE_S="5")
    first, second = (held(key, shut, key, queue=victim.queue) for key in "ab")
    run_id = deployment.enqueue(first, second)
    wait_until(lambda: len(_held_by(deployment, run_id, victim.worker)) == 1, DEADLINE_S, "one body, one message waits")
    family = victim.worker.child_pids()
    (key,) = _held_by(deployment, run_id, victim.worker)
    os.kill(victim.worker.pid, signal.SIGTERM)
    began = time.monotonic()
    wait_until(lambda: "Warm shutdown" in victim.worker.output, DEADLINE_S, "the shutdown begins")
    lease = deployment.step(run_id, key).lease_until
    wait_until(
        lambda: (deployment.step(run_id, key).lease_until - lease).total_seconds() > 6,
        DEADLINE_S,
        "more than a lease's time of heartbeats",
    )
    deployment.ledger.open_gate(shut)
    wait_until(lambda: not victim.worker.running and not _alive(family), DEADLINE_S, "every process has ended")
    successor = victims(args=("--queues", victim.queue))
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F7", injected="SIGTERM, 1 body, 1 message prefetched", recovery_s=time.monotonic() - began)
    steps = deployment.steps(run_id)
    assert {name: row.attempt for name, row in steps.items()} == {"a": 1, "b": 1}
    assert deployment.ledger.pids(steps[key].id)[0] in family
    assert all(deployment.ledger.of(row.id) == ["begin", "end"] for row in steps.values())
    assert successor.worker.running


def test_a_cold_shutdown_hands_its_steps_on_and_counts_nothing(
    deployment: Deployment, survivor: CeleryWorker, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F7: SIGQUIT: running → failed (`worker shutdown`) → running at once, not when the lease ends."""
    victim = victims(INTERLOCK_LEASE_S="60")
    run_id = deployment.enqueue(held("a", shut, "done", queue=victim.queue))
    step_id = deployment.begun(run_id)["a"]
    family = victim.worker.child_pids()
    os.kill(victim.worker.pid, signal.SIGQUIT)
    began = time.monotonic()
    wait_until(lambda: not victim.worker.running and not _alive(family), DEADLINE_S, "every process has ended")
    wait_until(lambda: deployment.step(run_id).attempt == 2, DEADLINE_S, "a new attempt")
    fault_report(fault="F7", injected="SIGQUIT in the body", recovery_s=time.monotonic() - began)
    failed = next(row for row in deployment.history(run_id, "a") if row.to_state == "failed")
    assert failed.transition_reason == "worker shutdown"
    deployment.ledger.open_gate(shut)
    victims(args=("--queues", victim.queue))
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    row = deployment.step(run_id)
    assert (row.losses, row.failures) == (0, 0)
    assert deployment.ledger.of(step_id) == ["begin", "begin", "end"]
    assert survivor.running


def test_a_soft_shutdown_longer_than_the_lease_loses_no_step(
    deployment: Deployment, survivor: CeleryWorker, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F7: MAIN sleeps while it waits for the bodies, so that the engine has to renew their claims by itself."""
    victim = victims(TEST_SOFT_SHUTDOWN_S="20", INTERLOCK_LEASE_S="5")
    run_id = deployment.enqueue(held("a", shut, "done", queue=victim.queue))
    deployment.begun(run_id)
    os.kill(victim.worker.pid, signal.SIGQUIT)
    wait_until(lambda: "Initiating Soft Shutdown" in victim.worker.output, DEADLINE_S, "the shutdown begins")
    lease = deployment.step(run_id).lease_until
    wait_until(
        lambda: (deployment.step(run_id).lease_until - lease).total_seconds() > 6,
        DEADLINE_S,
        "more than a lease's time of heartbeats",
    )
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F7", injected="SIGQUIT with a soft shutdown, the body ends in time")
    assert deployment.step(run_id).attempt == 1
    assert survivor.running


def test_a_soft_shutdown_that_is_over_before_the_body_hands_the_step_on(
    deployment: Deployment, survivor: CeleryWorker, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F7: what did not end in the time it was given is killed; `worker shutdown`, counted as nothing."""
    victim = victims(TEST_SOFT_SHUTDOWN_S="1", INTERLOCK_LEASE_S="60")
    run_id = deployment.enqueue(held("a", shut, "done", queue=victim.queue))
    step_id = deployment.begun(run_id)["a"]
    os.kill(victim.worker.pid, signal.SIGQUIT)
    began = time.monotonic()
    wait_until(lambda: deployment.step(run_id).attempt == 2, DEADLINE_S, "a new attempt")
    fault_report(fault="F7", injected="SIGQUIT with a soft shutdown of 1 s", recovery_s=time.monotonic() - began)
    wait_until(lambda: not victim.worker.running, DEADLINE_S, "the worker has ended")
    deployment.ledger.open_gate(shut)
    victims(args=("--queues", victim.queue))
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    row = deployment.step(run_id)
    assert (row.losses, row.failures) == (0, 0)
    assert [each.transition_reason for each in deployment.history(run_id, "a") if each.to_state == "failed"] == [
        "worker shutdown"
    ]
    assert deployment.ledger.of(step_id) == ["begin", "begin", "end"]
    assert survivor.running


def test_a_worker_killed_between_steps_and_started_again_goes_on(
    deployment: Deployment, victims: Victims, fault_report: FaultReport
) -> None:
    """F6: the last worker of its queue; what was on its way is sent again."""
    victim = victims(INTERLOCK_LEASE_S="2")
    keys = [f"s{number}" for number in range(4)]
    chain = [
        step(key, "echo", key, queue=victim.queue, after=keys[n - 1 : n] if n else []) for n, key in enumerate(keys)
    ]
    run_id = deployment.enqueue(*chain)
    wait_until(lambda: deployment.step(run_id, "s1").status == "completed", DEADLINE_S, "half of the chain")
    victim.worker.kill()
    killed = time.monotonic()
    victim.worker.start()
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F6", injected="kill -9 of MAIN between steps, restarted", recovery_s=time.monotonic() - killed)


def test_a_process_that_stands_still_in_a_transaction_does_not_keep_its_workflow_locked(
    deployment: Deployment, victims: Victims, fault_report: FaultReport
) -> None:
    """F6: the server ends its transaction; a pause goes through, and what it has to say afterwards is heard."""
    victim = victims(FaultRule(place="fail.commit", action="hold"), INTERLOCK_IDLE_TRANSACTION_S="2")
    run_id = deployment.enqueue(step("a", "fails_first", 1, queue=victim.queue))
    struck = victim.struck("fail.commit")
    deployment.client.pause(run_id, mode="drain")
    fault_report(
        fault="F6", injected="a process that stands still in a transaction", recovery_s=time.monotonic() - struck
    )
    victim.plan.release()
    wait_until(lambda: deployment.step(run_id).late, DEADLINE_S, "its failure is kept")
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    row = deployment.step(run_id)
    assert (row.attempt, row.failures, row.losses) == (2, 1, 0)


def test_a_worker_takes_no_message_before_its_engine_can_renew_a_claim(
    deployment: Deployment, fault_plan: FaultPlans, sound: Soundness
) -> None:
    """An engine imports the whole app; a body that began meanwhile would be given up when its first lease ends."""
    plan, name = fault_plan(FaultRule(place="engine.ready", action="hold")), "slow-engine"
    worker = CeleryWorker(
        deployment.app_path,
        log=deployment.folder / f"{name}.log",
        concurrency=1,
        env={**deployment.environment, **plan.environment()},
        args=("--queues", name),
    ).launch()
    deployment.workers.append(worker)
    run_id = deployment.enqueue(step("a", "echo", "a", queue=name))
    wait_until(lambda: plan.hits("engine.ready"), DEADLINE_S, "the engine is there, and has not said so")
    with Redis.from_url(deployment.broker.url(0)) as redis:
        assert redis.llen(name) > 0
    assert " ready." not in worker.output
    plan.release()
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert sound.findings() == []


def _held_by(deployment: Deployment, run_id: str, worker: CeleryWorker) -> list[str]:
    """The keys of the steps whose bodies run in a worker."""
    steps = deployment.steps(run_id).items()
    return [key for key, row in steps if row.claimed_by == worker.node and deployment.ledger.of(row.id)]


def _alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found
