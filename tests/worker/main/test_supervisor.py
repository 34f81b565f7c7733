"""An engine that is killed, and a MAIN that leaves nothing behind. What else may die is in `tests/faults`."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import psutil
import pytest

from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, engine_pid, gate, held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.celery_worker import CeleryWorker
    from tests.worker.deployment import Deployment


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
    with deployment.remote_client(command_timeout_s=DEADLINE_S) as remote:
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


def _alive(pids: list[int]) -> list[int]:
    alive = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                alive.append(pid)
    return alive
