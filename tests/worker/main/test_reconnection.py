"""The broker goes away for longer than a lease while bodies run: MAIN is busy reconnecting, and their claims live on."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from redis import Redis

from interlock import Step
from tests.servers import wait_until
from tests.worker.deployment import BRIEF, BRIEF_LEASE_S, DEADLINE_S, Ledger, task_name

if TYPE_CHECKING:
    from tests.worker.deployment import Deployment


def test_a_body_that_outlives_the_brokers_outage_is_not_run_again(deployment: Deployment) -> None:
    """Nothing is wrong with the worker, the database or the body; while MAIN reconnects, the engine renews alone."""
    place = deployment.events.url(3)  # the ledger is elsewhere than the broker, which is stopped
    worker = deployment.worker("outage", concurrency=1, TEST_LEDGER_URL=place, **BRIEF)
    ledger, shut = Ledger(place), uuid4().hex
    run_id = deployment.enqueue(Step("a", task_name("hold"), (shut,)))
    step_id = deployment.step_id(run_id)
    ledger.wait_for(step_id, "begin")
    deployment.broker.stop()
    claimed_until = deployment.step(run_id).lease_until
    wait_until(
        lambda: (
            (deployment.step(run_id).lease_until or claimed_until).timestamp()
            > claimed_until.timestamp() + 2 * BRIEF_LEASE_S
            or deployment.step(run_id).losses > 0
        ),
        DEADLINE_S,
        "the claim is renewed for twice a lease, or lost",
    )
    assert deployment.step(run_id).losses == 0
    deployment.broker.start()
    ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert ledger.of(step_id).count("begin") == 1
    assert deployment.step(run_id).attempt == 1
    ledger.close()
    worker.terminate()


@pytest.mark.parametrize("copies", [pytest.param("true", marks=pytest.mark.long), "false"])
def test_a_worker_that_has_taken_more_than_it_runs_survives_the_loss_of_the_broker(
    deployment: Deployment, copies: str
) -> None:
    """Celery's MAIN would end, and every body with it, while it gives back to a broker that is gone what it has not begun."""
    place = deployment.events.url(3)
    worker = deployment.worker(
        f"ahead-{copies}",
        concurrency=1,
        args=("--prefetch-multiplier", "8"),
        TEST_LEDGER_URL=place,
        INTERLOCK_BROKER_COPIES=copies,
    )
    ledger, shut = Ledger(place), uuid4().hex
    run_id = deployment.enqueue(*(Step(key, task_name("hold"), (shut,)) for key in ("a", "b", "c")))
    ids = {key: deployment.step_id(run_id, key) for key in ("a", "b", "c")}
    with Redis.from_url(deployment.broker.url(0)) as redis:
        wait_until(lambda: redis.llen("celery") == 0, DEADLINE_S, "every message is taken")
        ledger.wait_for(ids["a"], "begin")
        assert (redis.hlen("unacked") > 0) is (copies == "true")
    deployment.broker.kill()
    wait_until(lambda: "Trying again in" in worker.output or not worker.running, DEADLINE_S, "the loss is noticed")
    deployment.broker.start()
    ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert worker.running
    assert [ledger.of(step_id).count("begin") for step_id in ids.values()] == [1, 1, 1]
    ledger.close()
    worker.terminate()
