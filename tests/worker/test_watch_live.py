"""`Client.watch` on a run that workers move: late, through an outage of Redis, and never a change that was rolled back."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session

from interlock import Step, Workflow
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate, held, task_name

if TYPE_CHECKING:
    from interlock import Client
    from tests.worker.deployment import Deployment

OUTAGE_S = 5


@pytest.fixture(scope="module", autouse=True)
def _worker(deployment: Deployment) -> None:
    deployment.worker("watch", concurrency=2)


def _chain(*gates: str) -> list[Step]:
    steps: list[Step] = []
    for number, name in enumerate(gates):
        before = [step.key for step in steps[-1:]]
        steps += [held(f"h{number}", name, after=before), Step(f"e{number}", task_name("echo"), after=[f"h{number}"])]
    return steps


def _watched(client: Client, run_id: str) -> list[tuple[int, str | None, str]]:
    return [(event.seq, event.step_key, event.to_state) for event in client.watch(run_id, timeout_s=60)]


def _recorded(deployment: Deployment, run_id: str) -> list[tuple[int, str | None, str]]:
    return [(row.seq, row.step_key, row.to_state) for row in deployment.history(run_id)]


def test_a_watch_that_starts_late_gets_every_event_once_and_in_order(deployment: Deployment) -> None:
    with gate(deployment, uuid4().hex) as first, gate(deployment, uuid4().hex) as second, ThreadPoolExecutor(2) as pool:
        deployment.ledger.open_gate(first)
        run_id = deployment.enqueue(*_chain(first, second))
        deployment.begun(run_id, ["h1"])
        with deployment.remote_client() as remote:
            watches = [pool.submit(_watched, client, run_id) for client in (deployment.client, remote)]
            deployment.ledger.open_gate(second)
            seen = [watch.result(60) for watch in watches]
    assert seen == [_recorded(deployment, run_id)] * 2


def test_events_of_an_outage_of_redis_are_caught_up(deployment: Deployment) -> None:
    """The events server is away for five seconds, in which the run goes on; broker and database stay."""
    gates = [uuid4().hex for _ in range(3)]
    run_id = deployment.enqueue(*_chain(*gates))
    deployment.begun(run_id, ["h0"])
    with ThreadPoolExecutor(1) as pool:
        watch = pool.submit(_watched, deployment.client, run_id)
        deployment.ledger.open_gate(gates[0])
        deployment.begun(run_id, ["h1"])
        deployment.events.stop()
        until = time.monotonic() + OUTAGE_S
        try:
            deployment.ledger.open_gate(gates[1])
            deployment.begun(run_id, ["h2"])
            wait_until(lambda: time.monotonic() > until, DEADLINE_S, "the outage is over")
        finally:
            deployment.events.start()
            deployment.ledger.open_gate(gates[2])
        seen = watch.result(60)
    assert seen == _recorded(deployment, run_id)
    assert deployment.client.status(run_id)["status"] == "completed"


def test_the_asynchronous_watch_gives_the_same(deployment: Deployment) -> None:
    async def watch() -> list[tuple[int, str | None, str]]:
        events = deployment.client.awatch(run_id, timeout_s=60)
        return [(event.seq, event.step_key, event.to_state) async for event in events]

    with gate(deployment, uuid4().hex) as name:
        deployment.ledger.open_gate(name)
        run_id = deployment.enqueue(*_chain(name))
        assert asyncio.run(watch()) == _recorded(deployment, run_id)


def test_what_is_rolled_back_is_never_seen(deployment: Deployment) -> None:
    """A pause and a resume inside a transaction of the caller's that is rolled back: no row, no event, no gap."""
    with gate(deployment, uuid4().hex) as name, ThreadPoolExecutor(1) as pool:
        run_id = deployment.enqueue(*_chain(name))
        deployment.begun(run_id, ["h0"])
        watch = pool.submit(_watched, deployment.client, run_id)
        with Session(deployment.database.engine) as session:
            controller = deployment.controller(session)
            session.begin()
            controller.pause_workflow(run_id, "never")
            session.rollback()
        deployment.ledger.open_gate(name)
        seen = watch.result(60)
    assert seen == _recorded(deployment, run_id)
    assert "paused" not in [state for _, _, state in seen]


def test_a_run_that_has_ended_is_told_from_the_beginning(deployment: Deployment) -> None:
    run_id, _ = deployment.run(*Workflow("w", "x", [Step("a", task_name("add"), (1, 2))]).plan.steps)
    assert _watched(deployment.client, run_id) == _recorded(deployment, run_id)
