"""Processes killed mid-run: a whole worker, a child of its pool, its engine; and a worker asked to stop."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING
from uuid import uuid4

import psutil
import pytest

from interlock import Step
from interlock.core.retry import RetryPolicy
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, engine_pid, gate, held, task_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.celery_worker import CeleryWorker
    from tests.worker.deployment import Deployment

SOON = RetryPolicy(initial_delay_s=0.1, jitter=0)


@pytest.fixture(scope="module")
def survivor(deployment: Deployment) -> CeleryWorker:
    """The worker that nobody touches."""
    return deployment.worker("survivor", concurrency=2)


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


@pytest.fixture
def victim(deployment: Deployment) -> CeleryWorker:
    """A worker of the test's own, with a queue of its own."""
    name = f"victim-{uuid4().hex[:8]}"
    return deployment.worker(name, concurrency=2, args=("--queues", name))


def _queue_of(worker: CeleryWorker) -> str:
    return worker.log.stem


def test_another_worker_finishes_what_a_killed_one_held(
    deployment: Deployment,
    survivor: CeleryWorker,
    shut: str,
) -> None:
    """SIGKILL of MAIN while its bodies run: their leases run out, the survivor's sweeper retries them; no one intervenes."""
    victim = deployment.worker("victim", concurrency=2)
    keys = [f"s{number}" for number in range(8)]
    run_id = deployment.enqueue(*(held(key, shut, key, retry=SOON) for key in keys))
    wait_until(lambda: len(_bodies(deployment, run_id, victim)) == 2, DEADLINE_S, "the victim holds two bodies")
    lost = _bodies(deployment, run_id, victim)
    victim.kill()
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    for key, row in deployment.steps(run_id).items():
        assert deployment.moves(run_id, key).count("failed") == row.losses == (key in lost)
        assert deployment.ledger.of(row.id) == ["begin"] * (key in lost) + ["begin", "end"]
    reasons = {row.transition_reason for row in deployment.history(run_id, lost[0]) if row.to_state == "failed"}
    assert reasons == {"worker lost"}
    assert survivor.running


def test_a_child_killed_in_a_body_is_a_lost_worker_and_the_step_is_tried_again(
    deployment: Deployment,
    survivor: CeleryWorker,
) -> None:
    run_id, status = deployment.run(Step("a", task_name("dies"), (1,), retry=SOON))
    assert status == "completed"
    step = deployment.step(run_id)
    assert (step.result, step.losses, step.failures) == (2, 1, 0)
    assert deployment.moves(run_id) == ["pending", "running", "failed", "running", "completed"]
    failed = next(row for row in deployment.history(run_id, "a") if row.to_state == "failed")
    assert failed.transition_reason == "worker lost"
    assert failed.transitioned_by == survivor.node


def test_a_body_that_kills_its_process_each_time_fails_in_the_end(
    deployment: Deployment,
    survivor: CeleryWorker,
) -> None:
    policy = RetryPolicy(max_lost=2, initial_delay_s=0.1)
    run_id, status = deployment.run(Step("a", task_name("dies"), (100,), retry=policy))
    assert status == "failed"
    assert "WorkerLostError" in deployment.step(run_id).error
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["dies", "dies"]
    assert deployment.run(Step("a", task_name("add"), (1, 2)))[1] == "completed", "the pool is not whole again"
    assert survivor.running


def test_a_killed_engine_is_started_again_and_carries_out_once_what_came_meanwhile(
    deployment: Deployment,
    survivor: CeleryWorker,
    shut: str,
) -> None:
    """Both engines are killed, so that nobody consumes the control queue while the commands come.

    Nobody renews claims meanwhile either, so this worker's leases are longer than the start of an engine on a busy machine.
    """
    name = f"patient-{uuid4().hex[:8]}"
    victim = deployment.worker(name, concurrency=1, args=("--queues", name), INTERLOCK_LEASE_S="30")
    run_id = deployment.enqueue(held("a", shut, queue=_queue_of(victim)))
    deployment.begun(run_id)
    engines = {worker: engine_pid(worker) for worker in (victim, survivor)}
    for pid in engines.values():
        os.kill(pid, signal.SIGKILL)
    with deployment.remote_client() as remote:
        remote.pause(run_id, reason="while you were away", mode="drain", request_id="pause-1")
        remote.pause(run_id, mode="drain", request_id="pause-1")
        assert deployment.moves(run_id) == ["pending", "running", "paused"]
        remote.resume(run_id)
    for worker, pid in engines.items():
        wait_until(lambda worker=worker, pid=pid: engine_pid(worker) not in (pid, 0), DEADLINE_S, "a new engine")
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["begin", "end"]
    assert deployment.step(run_id).losses == 0
    victim.terminate()


def test_no_process_outlives_a_killed_main(deployment: Deployment, victim: CeleryWorker, shut: str) -> None:
    run_id = deployment.enqueue(held("a", shut, queue=_queue_of(victim)))
    deployment.begun(run_id)
    family = victim.child_pids()
    assert engine_pid(victim) in family
    victim.kill(children_too=False)
    deployment.ledger.open_gate(shut)
    wait_until(lambda: not _alive(family), DEADLINE_S, "all children are gone")
    deployment.client.cancel(run_id)


def test_a_warm_shutdown_waits_for_bodies_longer_than_the_lease(
    deployment: Deployment,
    victim: CeleryWorker,
    survivor: CeleryWorker,
    shut: str,
) -> None:
    """SIGTERM: the body goes on for twice the lease, is never declared lost, and its result counts; then all is gone."""
    run_id = deployment.enqueue(held("a", shut, "done", queue=_queue_of(victim)))
    deployment.begun(run_id)
    family = victim.child_pids()
    os.kill(victim.pid, signal.SIGTERM)
    wait_until(lambda: "Warm shutdown" in victim.output, DEADLINE_S, "the shutdown begins")
    lease = deployment.step(run_id).lease_until
    wait_until(
        lambda: (deployment.step(run_id).lease_until - lease).total_seconds() > 4,
        DEADLINE_S,
        "two leases' time of heartbeats",
    )
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    wait_until(lambda: not victim.running and not _alive(family), DEADLINE_S, "every process has ended")
    assert deployment.step(run_id).attempt == 1
    assert deployment.client.result(run_id) == {"a": "done"}
    assert survivor.running


def test_a_cold_shutdown_hands_its_steps_on_and_counts_nothing(
    deployment: Deployment,
    victim: CeleryWorker,
    survivor: CeleryWorker,
    shut: str,
) -> None:
    """SIGQUIT: running → failed (`worker shutdown`) → running at once, not when the lease ends."""
    run_id = deployment.enqueue(held("a", shut, "done", queue=_queue_of(victim)))
    step_id = deployment.begun(run_id)["a"]
    family = victim.child_pids()
    os.kill(victim.pid, signal.SIGQUIT)
    wait_until(lambda: not victim.running and not _alive(family), DEADLINE_S, "every process has ended")
    wait_until(lambda: deployment.step(run_id).attempt == 2, DEADLINE_S, "a new attempt")
    failed = next(row for row in deployment.history(run_id, "a") if row.to_state == "failed")
    assert failed.transition_reason == "worker shutdown"
    deployment.ledger.open_gate(shut)
    successor = deployment.worker(f"{victim.log.stem}-2", concurrency=1, args=("--queues", _queue_of(victim)))
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    step = deployment.step(run_id)
    assert (step.losses, step.failures) == (0, 0)
    assert deployment.ledger.of(step_id) == ["begin", "begin", "end"]
    successor.terminate()
    assert survivor.running


def test_a_soft_shutdown_longer_than_the_lease_loses_no_step(
    deployment: Deployment,
    survivor: CeleryWorker,
    shut: str,
) -> None:
    """MAIN sleeps while it waits for the bodies, so that the engine has to renew their claims by itself."""
    name = f"soft-{uuid4().hex[:8]}"
    victim = deployment.worker(name, concurrency=1, args=("--queues", name), TEST_SOFT_SHUTDOWN_S="10")
    run_id = deployment.enqueue(held("a", shut, "done", queue=name))
    deployment.begun(run_id)
    os.kill(victim.pid, signal.SIGQUIT)
    wait_until(lambda: "Initiating Soft Shutdown" in victim.output, DEADLINE_S, "the shutdown begins")
    lease = deployment.step(run_id).lease_until
    wait_until(
        lambda: (deployment.step(run_id).lease_until - lease).total_seconds() > 3,
        DEADLINE_S,
        "more than a lease's time of heartbeats",
    )
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.step(run_id).attempt == 1
    victim.kill()
    assert survivor.running


def _bodies(deployment: Deployment, run_id: str, worker: CeleryWorker) -> list[str]:
    """The keys of the steps whose bodies run in a worker."""
    steps = deployment.steps(run_id).items()
    return [key for key, row in steps if row.claimed_by == worker.node and deployment.ledger.of(row.id)]


def _alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
