"""Sweepers: how soon a lost worker is made good; many at once, killed in the middle, acting on what is not true any more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from interlock.core import WorkflowController, open_database
from interlock.core.settings import Settings
from tests.core.checker import faults
from tests.core.rows import Rows
from tests.core.rows import step as planned
from tests.core.worker_double import WorkerDouble
from tests.fault_plans import FaultRule
from tests.faults.steps import held, step
from tests.races.racers import Call, Racers
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from tests.faults.conftest import FaultPlans, FaultReport, Victims
    from tests.servers import PostgresDatabases
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.faults

LEASE_S: Final = 5.0
SWEEP_S: Final = 0.3
BUSY_S: Final = 10.0  # what a machine that does other things may add
HELD: Final = 20

THREADS: Final = ("--pool", "threads")


def _database_time(deployment: Deployment) -> datetime:
    with deployment.database.reading() as connection:
        now: datetime = connection.scalar(select(func.clock_timestamp()))
        return now


def test_the_steps_of_a_lost_worker_are_taken_from_it_within_lease_and_sweep(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F6: MAIN, pool and engine die together while they hold twenty steps; the other worker's sweeper fails and retries them."""
    victim = victims(concurrency=HELD, args=THREADS, INTERLOCK_LEASE_S=str(LEASE_S))
    run_id = deployment.enqueue(*(held(f"s{number}", shut, number, queue=victim.queue) for number in range(HELD)))
    deployment.begun(run_id, [f"s{number}" for number in range(HELD)])
    survivor = victims(concurrency=HELD, args=("--queues", victim.queue, *THREADS))
    killed, began = _database_time(deployment), time.monotonic()
    victim.worker.kill()
    for row in deployment.steps(run_id).values():
        deployment.ledger.wait_for(row.id, "begin", 2)
    recovery_s = time.monotonic() - began
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    failed = [row.created_at for row in deployment.history(run_id) if row.to_state == "failed"]
    assert len(failed) == HELD
    seen_s = max((at - killed).total_seconds() for at in failed)
    assert seen_s <= LEASE_S + SWEEP_S + BUSY_S
    assert survivor.worker.running
    fault_report(fault="F6", injected=f"a worker and its engine killed with {HELD} steps", recovery_s=recovery_s)


def test_sweepers_that_are_killed_in_the_middle_are_made_good_by_the_others(
    deployment: Deployment, victims: Victims, fault_plan: FaultPlans, fault_report: FaultReport
) -> None:
    """F29: three engines share a plan: the first to reach each of five places dies there; messages are lost as well."""
    places = ["sweep.found", *(f"{kind}.{at}" for kind in ("sweep", "redispatch") for at in ("commit", "committed"))]
    crashes = [FaultRule(place=place, action="crash") for place in places]
    plan = fault_plan(*crashes, FaultRule(place="dispatch.publish", action="drop", times=10))
    queue = f"shared-{uuid4().hex[:8]}"
    options = {**plan.environment(), "INTERLOCK_LEASE_S": str(LEASE_S)}
    for _ in range(3):
        victims(args=("--queues", queue), **options)
    began = time.monotonic()
    keys = [f"s{number}" for number in range(20)]
    first = [step(key, "fails_first", 1, queue=queue) for key in keys]
    then = [step(f"{key}-then", "echo", key, after=[key], queue=queue) for key in keys]
    run_id = deployment.enqueue(*first, *then)
    assert deployment.client.wait(run_id, timeout_s=3 * DEADLINE_S) == "completed"
    assert {place: plan.hits(place) > 0 for place in places} == dict.fromkeys(places, True)
    fault_report(
        fault="F29",
        injected="engines killed at every commit of their sweeps, with lost messages",
        runs=len(places),
        recovery_s=time.monotonic() - began,
    )


def test_a_sweeper_that_acts_on_what_is_not_true_any_more_changes_nothing(
    deployment: Deployment, victims: Victims, fault_report: FaultReport, shut: str
) -> None:
    """F29: it has read that a lease is over, and stands still; another sweeper retries the step, which completes; it goes on."""
    victim = victims(INTERLOCK_LEASE_S=str(LEASE_S))
    run_id = deployment.enqueue(held("a", shut, "a", queue=victim.queue), step("b", "echo", "b", after=["a"]))
    deployment.begun(run_id)
    slow = victims(
        FaultRule(place="sweep.found", action="hold", subject="attempts"),
        FaultRule(place="sweep.found", subject="retries", times=None),
    )
    victim.worker.kill()
    wait_until(lambda: slow.plan.hits("sweep.found", "attempts"), DEADLINE_S, "the slow one has found the lost attempt")
    deployment.ledger.open_gate(shut)
    victims(args=("--queues", f"{victim.queue},celery"))
    began = time.monotonic()
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    recovery_s = time.monotonic() - began
    history = deployment.history(run_id)
    slow.plan.release()

    def goes_on() -> bool:
        assert deployment.run(step("a", "fails_first", 1))[1] == "completed"
        return slow.plan.hits("sweep.found", "retries") > 0

    wait_until(goes_on, DEADLINE_S, "the slow one has come round to a retry")
    assert deployment.history(run_id) == history
    assert deployment.moves(run_id) == ["pending", "running", "failed", "running", "completed"]
    fault_report(fault="F29", injected="a sweeper that stands still behind its read", recovery_s=recovery_s)


# in great number


@pytest.fixture
def url(postgres_databases: PostgresDatabases, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database."""
    with postgres_databases.fresh(postgres_template) as url:
        yield url


def test_sweepers_of_six_workers_at_once_do_everything_once(url: str, fault_report: FaultReport) -> None:
    """F29: released together over a dead worker's step, a lost message and a due retry, thirty times."""
    rounds, sweepers = 30, 6
    database = open_database(url)
    worker, rows = WorkerDouble(database, Settings()), Rows(database)
    with Racers(url, sweepers) as racers, database.session() as session:
        controller = WorkflowController(session, settings=Settings())
        for _ in range(rounds):
            run_id = _everything_due(controller, worker, rows)
            outcomes = racers.race(*(Call("sweep", ()),) * sweepers)
            assert all(outcome.error is None for outcome in outcomes), outcomes
            sent = sorted(task_id for outcome in outcomes for task_id in outcome.sent)
            assert sent == sorted(rows.step(run_id, key).task_id for key in ("dead", "lost", "again"))
            assert rows.path(run_id, "dead") == ["pending", "running", "failed", "running"]
            assert rows.path(run_id, "again") == ["pending", "running", "failed", "running"]
            controller.cancel_workflow(run_id)
    found = faults(database)
    database.dispose()
    fault_report(fault="F29", injected=f"{sweepers} sweepers at once", runs=rounds, lost=len(found))
    assert not found


def _everything_due(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> str:
    """A run with a step of each kind that the sweeper looks for."""
    at_once: dict[str, Any] = {"retry": {"max_attempts": 3, "initial_delay_s": 0.0}}
    later: dict[str, Any] = {"retry": {"max_attempts": 2, "initial_delay_s": 60.0}}
    worker.queue.clear()
    plan = [planned("dead", **at_once), planned("lost"), planned("again", **later)]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    worker.claim("dead")
    worker.run_failing("again")
    for key, timer in (("dead", "lease_until"), ("lost", "dispatch_check_at"), ("again", "retry_at")):
        rows.make_due(run_id, key, timer)
    return run_id
