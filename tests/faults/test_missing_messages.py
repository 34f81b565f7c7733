"""Messages that are nowhere any more are sent again after a few sweeps, while the ordinary interval is a minute."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from redis import Redis

from interlock import Client, Workflow
from tests.fault_plans import FaultRule
from tests.faults.conftest import LONG_LEASE_S
from tests.faults.steps import held, step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock import Step
    from tests.faults.conftest import FaultPlans, FaultReport
    from tests.servers import CeleryWorker
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults

# The victim's engine waits longer for the victim's answer: a late one means "missing", as it may, and costs a message.
_PATIENT = {"INTERLOCK_LEASE_S": "10", "TEST_WORKERS_S": "3"}
REDISPATCH_S = 60  # so that nothing but the look for missing messages can explain a recovery


@pytest.fixture(scope="module")
def producer(deployment: Deployment) -> Iterator[Client]:
    """A producer that has the workers' interval."""
    with Client(deployment.producer_app(interlock_redispatch_s=REDISPATCH_S), actor="tester") as client:
        yield client


@pytest.fixture
def queue() -> str:
    """A queue of the test's own."""
    return f"queue-{uuid4().hex[:8]}"


def _worker(
    deployment: Deployment, queue: str, name: str = "", *, prefetch: int = 1, **environment: str
) -> CeleryWorker:
    args = ("--queues", queue, "--prefetch-multiplier", str(prefetch))
    environment = {"INTERLOCK_LEASE_S": LONG_LEASE_S, "INTERLOCK_REDISPATCH_S": str(REDISPATCH_S), **environment}
    return deployment.worker(f"{queue}{name}", concurrency=1, args=args, **environment)


def _enqueue(producer: Client, *steps: Step) -> str:
    return producer.enqueue(Workflow("missing", "Be found.", steps))


def _sent(deployment: Deployment, run_id: str) -> list[int]:
    return [row.dispatches for row in deployment.steps(run_id).values()]


def test_a_flushed_broker_costs_a_few_sweeps(
    deployment: Deployment, producer: Client, queue: str, fault_report: FaultReport
) -> None:
    """F10: every message is lost; the attempts keep their ids, and the worker never stopped."""
    worker = _worker(deployment, queue)
    with gate(deployment, queue) as shut:
        busy = _enqueue(producer, held("a", shut, queue=queue))
        deployment.begun(busy)
        run_id = _enqueue(producer, *(step(f"s{number}", "echo", number, queue=queue) for number in range(50)))
        with Redis.from_url(deployment.broker.url(0)) as redis:
            wait_until(lambda: redis.llen(queue) >= 48, DEADLINE_S, "the messages are in the queue")
            redis.flushdb()
        flushed = time.monotonic()
    assert producer.wait(run_id, timeout_s=REDISPATCH_S / 2) == "completed"
    recovery_s = time.monotonic() - flushed
    assert {(row.attempt, row.losses) for row in deployment.steps(run_id).values()} == {(1, 0)}
    assert max(_sent(deployment, run_id)) <= 5
    fault_report(fault="F10", injected="broker flushed under 50 queued steps", recovery_s=recovery_s)
    worker.kill()


def test_what_a_worker_has_taken_and_not_begun_is_not_sent_again_until_the_worker_is_gone(
    deployment: Deployment, producer: Client, queue: str, fault_plan: FaultPlans, fault_report: FaultReport
) -> None:
    """F6, F10: four messages wait in a busy worker, whose queue is empty; it dies, and Redis would keep them for an hour."""
    plan = fault_plan(FaultRule(place="missing.asked", times=None))
    victim = _worker(deployment, queue, "-victim", prefetch=4, **_PATIENT, **plan.environment())
    with gate(deployment, queue) as shut:
        run_id = _enqueue(producer, *(held(f"s{number}", shut, number, queue=queue) for number in range(4)))
        deployment.begun(run_id, ["s0"])
        wait_until(lambda: victim.output.count("received") == 4, DEADLINE_S, "the worker has them all")
        asked = plan.hits("missing.asked")
        wait_until(lambda: plan.hits("missing.asked") >= asked + 2, DEADLINE_S, "the worker was asked twice")
        assert _sent(deployment, run_id) == [1, 1, 1, 1]
        successor = _worker(deployment, queue, "-successor", prefetch=4)
        victim.kill()
        killed = time.monotonic()
    assert producer.wait(run_id, timeout_s=REDISPATCH_S / 2) == "completed"
    recovery_s = time.monotonic() - killed
    assert [row.losses for row in deployment.steps(run_id).values()] == [1, 0, 0, 0]
    fault_report(fault="F6", injected="a worker killed with 3 messages that it had not begun", recovery_s=recovery_s)
    successor.kill()
