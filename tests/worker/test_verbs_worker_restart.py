"""Paused, every worker dies; new ones come, and what was paused goes on when it is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from interlock import RetryPolicy, Step
from tests.servers import wait_until
from tests.worker.deployment import BRIEF, DEADLINE_S, gate, held, task_name

if TYPE_CHECKING:
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.long

APP = "tests.worker.author_tasks"
LATER = RetryPolicy(max_attempts=2, initial_delay_s=0.5, jitter=0)


def start_worker(deployment: Deployment, name: str) -> None:
    """Start a worker that has a slot for most of the steps; what it leaves behind is free when its lease ends."""
    deployment.worker(name, concurrency=4, app=APP, **{**BRIEF, "INTERLOCK_APP": f"{APP}:app"})


@pytest.mark.parametrize(("mode", "workers"), [("interrupt", 2), ("drain", 1)])
def test_a_paused_run_outlives_every_worker(deployment: Deployment, mode: str, workers: int) -> None:
    """Steps that had begun, that were queued, that wait for others, for a retry, and for a person: all go on."""
    for number in range(workers):
        start_worker(deployment, f"first-{mode}-{number}")
    with gate(deployment, uuid4().hex) as shut:
        steps = [held(f"h{number}", shut, number) for number in range(6)]
        run_id = deployment.enqueue(
            *steps,
            Step("walks", f"{APP}.walk", (4, 2, shut), after=()),
            Step("fails", f"{APP}.fails_until", (2,), retry=LATER),
            Step("asks", approval=True),
            Step("queued", task_name("echo"), ("queued",)),
            Step("last", task_name("total"), ({"$expr": "[results.h0, results.h5]"},), after=["h0", "h5", "asks"]),
        )
        wait_until(lambda: deployment.ledger.count("begin") >= 4, DEADLINE_S, "bodies run")
        deployment.client.pause(run_id, mode=mode, reason="the data centre moves")
        for worker in deployment.workers:
            worker.kill()
    deployment.client.approve(run_id, "asks", "while nobody works")
    assert deployment.client.status(run_id)["status"] == "paused"

    start_worker(deployment, f"second-{mode}")
    probe, status = deployment.run(Step("probe", task_name("add"), (1, 2)))
    assert status == "completed", f"the new workers work, they have done {probe}"
    assert deployment.client.status(run_id)["status"] == "paused"
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=30) == "completed"
    rows = deployment.steps(run_id)
    assert {row.status for row in rows.values()} == {"completed"}
    assert {key: row.result for key, row in rows.items() if key.startswith("h")} == {f"h{n}": n for n in range(6)}
    assert rows["last"].result == 5
    assert sum(row.losses for row in rows.values()) == 0, "whom a pause had stopped was not lost with its worker"
    for worker in deployment.workers:
        worker.kill()
    deployment.workers.clear()
