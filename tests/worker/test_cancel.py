"""Cancel: one transaction however large the run, quick however busy the pool, and in the end by force."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import text

from interlock import Step
from tests.servers import wait_until
from tests.worker.deployment import COMMON_SLOTS as SLOTS
from tests.worker.deployment import DEADLINE_S, gate, held, task_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.celery_worker import CeleryWorker
    from tests.worker.deployment import Deployment


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def test_cancel_of_a_thousand_steps_is_one_transaction(deployment: Deployment, shut: str) -> None:
    keys = [f"s{number}" for number in range(1_000)]
    run_id = deployment.enqueue(*(held(key, shut) for key in keys))
    wait_until(lambda: len(_running(deployment, run_id)) == SLOTS, DEADLINE_S, "every slot holds a body")
    deployment.client.cancel(run_id, reason="enough")
    deployment.app.control.purge()  # refusing them one by one is the claim's business, and shown elsewhere
    with deployment.database.reading() as connection:
        transactions, rows = connection.execute(
            text(
                "SELECT count(DISTINCT xmin::text), count(*) FROM state_history "
                "WHERE workflow_id = :run AND to_state = 'cancelled'",
            ),
            {"run": run_id},
        ).one()
    assert (transactions, rows) == (1, 1_001)
    assert deployment.client.status(run_id)["counts"] == {"cancelled": 1_000}
    wait_until(
        lambda: not [row for row in deployment.steps(run_id).values() if row.drain_token], DEADLINE_S, "all bodies end"
    )


def test_a_cancel_is_obeyed_at_once_while_every_slot_is_busy(deployment: Deployment, shut: str) -> None:
    """Through the control queue, which has a process of its own; measured to the last line of the last cleanup."""
    keys = [f"s{number}" for number in range(SLOTS)]
    run_id = deployment.enqueue(*(held(key, shut) for key in keys))
    ids = deployment.begun(run_id, keys)
    with deployment.remote_client() as remote:
        started = time.monotonic()
        remote.cancel(run_id, reason="now")
        for step_id in ids.values():
            deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")
        took_s = time.monotonic() - started
    assert took_s < 5
    assert deployment.client.status(run_id)["status"] == "cancelled"


def test_a_body_that_swallows_the_signal_is_ended_after_the_grace(
    deployment: Deployment, common_worker: CeleryWorker, shut: str
) -> None:
    run_id = deployment.enqueue(held("a", shut, task="hard_of_hearing"))
    step_id = deployment.begun(run_id)["a"]
    (pid,) = deployment.ledger.pids(step_id)
    deployment.client.cancel(run_id)
    deployment.ledger.wait_for(step_id, "swallowed")
    wait_until(lambda: pid not in common_worker.child_pids(), DEADLINE_S, "its process is gone")
    _, status = deployment.run(Step("a", task_name("add"), (1, 2)))
    assert status == "completed", "the slot was lost with the process"
    assert deployment.ledger.of(step_id) == ["begin", "swallowed"]


def test_what_comes_late_from_a_cancelled_step_changes_nothing(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(held("a", shut, "late", task="finish_anyway"))
    step_id = deployment.begun(run_id)["a"]
    deployment.client.cancel(run_id)
    deployment.ledger.wait_for(step_id, "hurried")
    wait_until(lambda: deployment.step(run_id).drain_token is None, DEADLINE_S, "the attempt is let go")
    step = deployment.step(run_id)
    assert (step.status, step.result) == ("cancelled", None)
    assert [row.to_state for row in deployment.history(run_id)][-1] == "cancelled"


def test_a_cancel_again_is_a_no_op(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(held("a", shut))
    deployment.client.cancel(run_id)
    seq = deployment.client.status(run_id)["seq"]
    deployment.client.cancel(run_id)
    assert deployment.client.status(run_id)["seq"] == seq


def _running(deployment: Deployment, run_id: str) -> list[str]:
    return [row.id for row in deployment.steps(run_id).values() if deployment.ledger.of(row.id)]
