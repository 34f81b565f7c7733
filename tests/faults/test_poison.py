"""What is poison each time it is touched: steps and messages (F26), receivers (F27), and listeners of the user's (F34)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from kombu import Connection
from redis import Redis

from interlock.core.model.retry import RetryPolicy
from interlock.signals.control.queues import control_queue
from tests.fault_plans import FaultRule
from tests.faults.steps import held, step
from tests.worker.deployment import DEADLINE_S

if TYPE_CHECKING:
    from tests.celery_worker import CeleryWorker
    from tests.faults.conftest import FaultReport, Victims
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults

HOSTILE = "tests.faults.hostile_app"


@pytest.fixture(scope="module")
def worker(deployment: Deployment) -> CeleryWorker:
    """A worker with results of at most 10 kB."""
    limits = {"INTERLOCK_MAX_RESULT_BYTES": "10000", "INTERLOCK_LEASE_S": "15"}
    return deployment.worker("poisoned", concurrency=2, **limits)


@pytest.mark.parametrize("name", ["segfaults", "kills_itself"])
def test_a_body_that_ends_its_process_each_time_is_given_up_and_others_are_unaffected(
    deployment: Deployment, worker: CeleryWorker, fault_report: FaultReport, name: str
) -> None:
    """F26: as often as its policy says, with the reason; beside it another run goes on in the same pool."""
    healthy = deployment.enqueue(*_chain(12))
    began = time.monotonic()
    policy = RetryPolicy(max_lost=2, initial_delay_s=0.1)
    run_id, status = deployment.run(step("a", name, retry=policy))
    assert status == "failed"
    row = deployment.step(run_id)
    assert (row.losses, row.failures, row.attempt) == (2, 0, 2)
    assert "WorkerLostError" in row.error
    assert deployment.moves(run_id) == ["pending", "running", "failed", "running", "failed"]
    assert deployment.client.wait(healthy, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F26", injected=f"a body that {name}", runs=2, recovery_s=time.monotonic() - began)
    assert all(row.attempt == 1 for row in deployment.steps(healthy).values())
    assert worker.running


@pytest.mark.parametrize(
    ("name", "args", "named"),
    [("returns_object", (), "result['deep'][0]"), ("returns_much", (20_000,), "20,002 bytes")],
)
def test_a_result_that_cannot_be_stored_fails_the_step_and_names_the_cause(
    deployment: Deployment,
    worker: CeleryWorker,
    fault_report: FaultReport,
    name: str,
    args: tuple[Any, ...],
    named: str,
) -> None:
    """F26: not JSON, or over the limit. It cannot succeed the next time either, so it is not tried again."""
    run_id, status = deployment.run(step("a", name, *args))
    assert status == "failed"
    fault_report(fault="F26", injected=f"a body that {name}")
    row = deployment.step(run_id)
    assert named in row.error
    assert row.attempt == 1
    assert worker.running


def test_a_control_message_that_is_no_command_is_set_aside_and_steps_and_commands_go_on(
    deployment: Deployment, worker: CeleryWorker, fault_report: FaultReport, shut: str
) -> None:
    """F26: half JSON, bytes, a foreign message, and what the transport itself cannot read, in front of a pause."""
    run_id = deployment.enqueue(held("a", shut, "done"))
    deployment.begun(run_id)
    queue = control_queue("interlock")
    with Connection(deployment.broker.url(0)) as connection, connection.Producer() as producer:
        for poison in (b"{", b"\xff\xfe\x00", b'{"command": "explode"}'):
            producer.publish(
                poison,
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                declare=[queue],
                content_type="application/json",
                content_encoding="binary",
            )
    with Redis.from_url(deployment.broker.url(0)) as redis:
        redis.lpush("interlock.control", "this is no kombu message")
        began = time.monotonic()
        with deployment.remote_client(command_timeout_s=DEADLINE_S) as remote:
            remote.pause(run_id, mode="drain", request_id=uuid4().hex)
            remote.resume(run_id)
        fault_report(fault="F26", injected="4 poison control messages", runs=4, recovery_s=time.monotonic() - began)
        assert redis.llen("interlock.control.dead") == 3
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert worker.running


@pytest.mark.parametrize("place", ["claim.commit", "claim.committed", "body.end", "complete.commit"])
def test_a_receiver_that_raises_loses_no_transition(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, place: str
) -> None:
    """F27: Celery swallows what it raises; the message is sent again, or the lease ends and the body runs again."""
    victim = victims(FaultRule(place=place, action="raise"), INTERLOCK_LEASE_S="2")
    run_id = deployment.enqueue(*_chain(2, queue=victim.queue))
    struck = victim.struck(place)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F27", injected=f"an exception at {place}", recovery_s=time.monotonic() - struck)


def test_behind_the_commit_a_receiver_that_raises_loses_no_dependent(
    deployment: Deployment, victims: Victims, fault_report: FaultReport
) -> None:
    """F27: the step is completed, and nobody was told; the sweeper publishes what follows."""
    victim = victims(FaultRule(place="complete.committed", action="raise"))
    run_id = deployment.enqueue(*_chain(2, queue=victim.queue))
    struck = victim.struck("complete.committed")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F27", injected="an exception at complete.committed", recovery_s=time.monotonic() - struck)
    assert all(row.attempt == 1 for row in deployment.steps(run_id).values())


def test_with_no_connection_free_a_receiver_waits_and_reports_in_the_end(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F27: the pool of the process is exhausted when the body ends; its result is not lost with that."""
    victim = victims(app=HOSTILE, TEST_EXHAUST=shut)
    run_id = deployment.enqueue(*_chain(2, queue=victim.queue))
    deployment.ledger.wait_for(shut, "exhausted")
    assert deployment.step(run_id, "s0").status == "running"
    deployment.ledger.open_gate(shut)
    opened = time.monotonic()
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F27", injected="no connection free in the pool", recovery_s=time.monotonic() - opened)
    assert all(row.attempt == 1 for row in deployment.steps(run_id).values())


def test_listeners_that_raise_stop_no_move_and_no_other_listener(
    deployment: Deployment, victims: Victims, fault_report: FaultReport
) -> None:
    """F34: before the write, behind the commit, and the handler before the one that dispatches."""
    victim = victims(app=HOSTILE, TEST_BAD_LISTENERS="1")
    run_id = deployment.enqueue(*_chain(3, queue=victim.queue))
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    fault_report(fault="F34", injected="listeners and handlers that raise", runs=3)
    for event in ("state_changing", "state_changed"):  # the last is told behind the commit that the client has seen
        deployment.ledger.wait_for(run_id, f"{event} completed", times=4)  # the run itself included
        assert deployment.ledger.of(run_id).count(f"{event} running") == 3
    assert all(row.attempt == 1 for row in deployment.steps(run_id).values())


def _chain(length: int, **options: Any) -> list[Any]:
    keys = [f"s{number}" for number in range(length)]
    return [step(key, "echo", key, after=keys[n - 1 : n] if n else [], **options) for n, key in enumerate(keys)]
