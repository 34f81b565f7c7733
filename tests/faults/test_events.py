"""Redis for events is away, restarts, or throws a slow subscriber off; a process dies between its commit and its publishing.

The broker is another server, so steps go on. What subscribers received is compared with the history behind each test.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from redis import Redis

from tests.fault_plans import FaultRule, injected
from tests.faults.conftest import LONG_LEASE_S
from tests.faults.steps import held, step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.conftest import FaultReport, Victims
    from tests.faults.soundness import Soundness
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module", autouse=True)
def _worker(deployment: Deployment) -> None:
    """For steps whose worker lives on."""
    deployment.worker("events", INTERLOCK_LEASE_S=LONG_LEASE_S)


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def _heard(deployment: Deployment, sound: Soundness, run_id: str) -> None:
    """Wait until the subscriber has all that is committed."""
    changes = len(deployment.history(run_id))
    wait_until(lambda: len(sound.record.of(run_id)) == changes, DEADLINE_S, "the subscriber has caught up")


def test_steps_go_on_without_redis_and_subscribers_catch_up_when_it_is_back(
    deployment: Deployment, sound: Soundness, fault_report: FaultReport
) -> None:
    """F18: away for the whole life of a run, and of half another one."""
    run_id = deployment.enqueue(step("a", "echo", 1), step("b", "echo", 2, after=["a"]))
    deployment.events.stop()
    keys = [f"s{number}" for number in range(20)]
    chain = [step(key, "echo", key, after=keys[max(0, n - 1) : n]) for n, key in enumerate(keys)]
    other = deployment.enqueue(*chain)
    for each in (run_id, other):
        deployment.wait_for_status(each, "completed")
    deployment.events.start()
    back = time.monotonic()
    for each in (run_id, other):
        _heard(deployment, sound, each)
    recovery_s = time.monotonic() - back
    assert deployment.run(step("a", "echo", 1))[1] == "completed"
    fault_report(fault="F18", injected="Redis for events away for two runs of 22 steps", recovery_s=recovery_s)


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_redis_that_restarts_under_a_subscriber_costs_it_nothing(
    deployment: Deployment, sound: Soundness, fault_report: FaultReport, shut: str, how: str
) -> None:
    """F19: between two steps, with nobody's help."""
    run_id = deployment.enqueue(held("a", shut, 1), step("b", "echo", 2, after=["a"]))
    deployment.begun(run_id)
    _heard(deployment, sound, run_id)
    if how == "restart":
        deployment.events.restart()
    else:
        deployment.events.kill()
        deployment.events.start()
    back = time.monotonic()
    deployment.ledger.open_gate(shut)
    deployment.wait_for_status(run_id, "completed")
    _heard(deployment, sound, run_id)
    fault_report(fault="F19", injected=f"Redis for events: {how}", recovery_s=time.monotonic() - back)


def test_a_subscriber_that_redis_throws_off_for_being_slow_gets_every_change_once(
    deployment: Deployment, fault_report: FaultReport, shut: str
) -> None:
    """F19: it takes one change and sits on it, until Redis has no more room for what it does not read."""
    limit = "client-output-buffer-limit"
    run_id = deployment.enqueue(held("a", shut, 1), step("b", "echo", 2, after=["a"]))
    deployment.begun(run_id)
    with Redis.from_url(deployment.events.url(0), decode_responses=True) as admin:
        before = admin.config_get(limit)[limit]
        admin.config_set(limit, "pubsub 100000 0 0")
        watch = deployment.client.watch(run_id)
        received = [next(watch)]
        wait_until(lambda: _subscribed(admin), DEADLINE_S, "it is subscribed")
        for number in range(10_000):
            if not _subscribed(admin):
                break
            deployment.client.pause(run_id, "a", reason=f"{number} {'x' * 9_000}", mode="drain")
            deployment.client.resume(run_id, "a")
        else:
            pytest.fail("Redis threw nobody off")
        thrown = time.monotonic()
        admin.config_set(limit, before)
        deployment.ledger.open_gate(shut)
        received += watch
    recovery_s = time.monotonic() - thrown
    history = deployment.history(run_id)
    assert [(each.seq, each.to_state) for each in received] == [(row.seq, row.to_state) for row in history]
    fault_report(fault="F19", injected="a subscriber over Redis' output buffer limit", recovery_s=recovery_s)


def _subscribed(admin: Redis) -> bool:
    """Whether anybody listens to one run; the checker listens to the whole session, by a pattern."""
    return any(int(client["sub"]) for client in admin.client_list(_type="pubsub"))


@pytest.mark.parametrize(
    "place", ["complete.committed", "dispatch.publish", "dispatch.published", "events.publish", "events.published"]
)
def test_a_process_that_dies_between_its_commit_and_its_publishing_loses_nothing(
    deployment: Deployment, sound: Soundness, victims: Victims, fault_report: FaultReport, place: str
) -> None:
    """F20: kill -9 before or behind each message that a completion sends: its dependent's, and its events."""
    claims_events = 1 if place.startswith("events") else 0
    victim = victims(FaultRule(place=place, action="crash", skip=claims_events))
    run_id = deployment.enqueue(step("a", "echo", 1, queue=victim.queue), step("b", "echo", 2, after=["a"]))
    struck = victim.struck(place, 1 + claims_events)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert {row.attempt for row in deployment.steps(run_id).values()} == {1}
    _heard(deployment, sound, run_id)
    fault_report(fault="F20", injected=f"kill -9 at {place}", recovery_s=time.monotonic() - struck)


def test_events_that_are_doubled_or_dropped_reach_a_subscriber_once(
    deployment: Deployment, sound: Soundness, fault_report: FaultReport, tmp_path: Path
) -> None:
    """F20: of a producer in this process."""
    rules = [FaultRule(place="events.publish", action=action, skip=n) for n, action in enumerate(("drop", "duplicate"))]
    with injected(tmp_path, *rules) as plan:
        runs = [deployment.enqueue(step("a", "echo", 1)) for _ in range(2)]
        assert plan.hits("events.publish") >= 2
    for run_id in runs:
        deployment.wait_for_status(run_id, "completed")
        _heard(deployment, sound, run_id)
    fault_report(fault="F20", injected="events dropped, and published twice", runs=2)
