"""The broker goes away for longer than a lease while bodies run: MAIN is busy reconnecting, and their claims live on."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from interlock import Step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, Ledger, task_name

if TYPE_CHECKING:
    from tests.worker.deployment import Deployment

LEASE_S = 2  # the deployment's


def test_a_body_that_outlives_the_brokers_outage_is_not_run_again(deployment: Deployment) -> None:
    """Nothing is wrong with the worker, the database or the body; while MAIN reconnects, the engine renews alone."""
    place = deployment.events.url(3)  # the ledger is elsewhere than the broker, which is stopped
    worker = deployment.worker("outage", concurrency=1, TEST_LEDGER_URL=place)
    ledger, shut = Ledger(place), uuid4().hex
    run_id = deployment.enqueue(Step("a", task_name("hold"), (shut,)))
    step_id = deployment.step_id(run_id)
    ledger.wait_for(step_id, "begin")
    deployment.broker.stop()
    claimed_until = deployment.step(run_id).lease_until
    wait_until(
        lambda: (
            (deployment.step(run_id).lease_until or claimed_until).timestamp() > claimed_until.timestamp() + 2 * LEASE_S
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
