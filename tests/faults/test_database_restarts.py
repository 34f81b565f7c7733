"""PostgreSQL crashes and comes back while something is about to commit, or just has: work goes on, and nothing is done twice."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest

from interlock.migrations import upgrade
from tests.fault_plans import FaultRule
from tests.faults.conftest import APP, checker_of
from tests.faults.steps import step
from tests.servers import PostgresServer, wait_until
from tests.worker.deployment import DEADLINE_S, Deployment, gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.conftest import FaultPlans, FaultReport
    from tests.servers import RedisServer

pytestmark = pytest.mark.faults

_LONG_S: Final = 60.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A server that no other module uses."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def deployment(
    postgres: PostgresServer,
    fault_redis: tuple[RedisServer, RedisServer, RedisServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """A deployment on it."""
    broker, events, ledger = fault_redis
    url = postgres.create_database("interlock_restarts")
    upgrade(url)
    with Deployment(broker, events, url, tmp_path_factory.mktemp("deployment"), ledger=ledger, app=APP) as deployment:
        checker_of(deployment)
        yield deployment
        deployment.stop_workers()


# Where a process is when the server goes away, what makes it come there, and how the server ends.
_MOMENTS: Final = (
    pytest.param("claim.commit", "echo", "crash", id="claim"),
    pytest.param("claim.committed", "echo", "crash", id="claimed"),
    pytest.param("complete.commit", "echo", "crash", id="completion"),
    pytest.param("complete.committed", "echo", "crash", id="completed"),
    pytest.param("complete.commit", "echo", "stop", id="completion, server stopped in order"),
    pytest.param("fail.commit", "fails_first", "crash", id="failure"),
    pytest.param("sweep.commit", "fails_first", "crash", id="sweep"),
    pytest.param("sweep.committed", "fails_first", "crash", id="swept"),
    pytest.param("heartbeat.commit", "hold", "crash", id="heartbeat"),
)


@pytest.mark.parametrize(("place", "task", "how"), _MOMENTS)
def test_work_goes_on_when_the_database_is_back(
    deployment: Deployment,
    postgres: PostgresServer,
    fault_plan: FaultPlans,
    fault_report: FaultReport,
    place: str,
    task: str,
    how: str,
) -> None:
    """F15."""
    plan = fault_plan(FaultRule(place=place, action="hold"))
    worker = deployment.worker(place + how, **plan.environment())
    with gate(deployment, uuid4().hex) as shut:
        first = step("a", task, shut if task == "hold" else 1)
        run_id = deployment.enqueue(first, step("b", "echo", "b", after=["a"]), step("c", "echo", "c"))
        wait_until(lambda: plan.hits(place), DEADLINE_S, "it is about to commit")
        if how == "crash":
            postgres.kill()
        else:
            postgres.stop()
        plan.release()
    postgres.start()
    back = time.monotonic()
    assert deployment.client.wait(run_id, timeout_s=_LONG_S) == "completed"
    recovery_s = time.monotonic() - back
    worker.kill()
    fault_report(fault="F15", injected=f"PostgreSQL: {how} at {place}", recovery_s=recovery_s)


def test_bodies_that_are_healthy_through_an_outage_longer_than_their_leases_are_not_lost(
    deployment: Deployment, postgres: PostgresServer, fault_report: FaultReport
) -> None:
    """F15: every lease is over when the database is back, and the workers renew theirs before a sweeper takes them for lost."""
    # A heartbeat that is long beside a sweep: the first sweep comes before it nearly always.
    lease_s = 6.0
    rare = {"INTERLOCK_LEASE_S": str(lease_s), "INTERLOCK_HEARTBEAT_S": "4"}
    worker = deployment.worker("outage", concurrency=4, **rare)
    with gate(deployment, uuid4().hex) as shut:
        runs = [deployment.enqueue(step("a", "hold", shut)) for _ in range(4)]
        for run_id in runs:
            deployment.begun(run_id)
        postgres.kill()
        time.sleep(1.5 * lease_s)  # an outage has no event but its length
        postgres.start()
        back = time.monotonic()
        outage_ended = datetime.now(UTC)

        def renewed() -> bool:
            return all(deployment.step(run_id).lease_until > outage_ended for run_id in runs)

        wait_until(renewed, DEADLINE_S, "their leases are renewed")
        recovery_s = time.monotonic() - back
    assert [deployment.client.wait(run_id, timeout_s=_LONG_S) for run_id in runs] == ["completed"] * 4
    assert [deployment.moves(run_id) for run_id in runs] == [["pending", "running", "completed"]] * 4
    worker.kill()
    fault_report(fault="F15", injected="PostgreSQL away for 1.5 leases, 4 bodies", runs=4, recovery_s=recovery_s)
