"""A step over a list that is known only at run time, with real workers: how many at once, in which order, and what fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from interlock import RetryPolicy, Step, Workflow
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate, task_name

if TYPE_CHECKING:
    from tests.celery_worker import CeleryWorker
    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.long

APP = "tests.worker.author_tasks"
ITEMS = {"map": 1_000, "workflow": 200}
AT_ONCE = 10


@pytest.fixture(scope="module", autouse=True)
def worker(deployment: Deployment) -> CeleryWorker:
    """More slots than the limit would need, so that it is the limit that holds."""
    return deployment.worker("maps", concurrency=AT_ONCE + 2, app=APP, INTERLOCK_APP=f"{APP}:app")


def mapped(task: str = "double", *args: Any, over: str = "results.list", **options: Any) -> Step:
    """A step over the items that the step `list` finds."""
    each = {"$expr": "item"}
    limit = options.pop("max_parallel", None)
    spec = {"over": over} if limit is None else {"over": over, "max_parallel": limit}
    return Step("m", f"{APP}.{task}", (each, *args), after="list", map=spec, **options)


def found(items: list[int]) -> Step:
    """A step that finds the items, which no plan knows before."""
    return Step("list", task_name("echo"), (items,))


def after_it() -> Step:
    """A step that is given the joined list."""
    return Step("after", task_name("echo"), ({"$expr": "results.m"},), after="m")


def most_at_once(deployment: Deployment, run_id: str) -> int:
    """How many items were held by workers at the same time, by the history: its order is that of the commits."""
    running: set[str | None] = set()
    most = 0
    for row in deployment.history(run_id):
        if (row.step_key or "").startswith("m."):
            (running.add if row.to_state == "running" else running.discard)(row.step_key)
            most = max(most, len(running))
    return most


@pytest.mark.parametrize("limited", ["map", "workflow"])
def test_of_a_thousand_items_never_more_than_ten_at_once_and_joined_in_order(
    deployment: Deployment, limited: str
) -> None:
    """The limit is the mapped step's, or the whole workflow's (200 items)."""
    steps = (found(list(range(ITEMS[limited]))), mapped(max_parallel=AT_ONCE if limited == "map" else None))
    limit = AT_ONCE if limited == "workflow" else None
    run_id = deployment.client.enqueue(Workflow("many", "Double them all.", steps, max_parallel=limit))
    assert deployment.client.wait(run_id, timeout_s=90) == "completed"
    assert deployment.client.result(run_id) == {"m": [number * 2 for number in range(ITEMS[limited])]}
    assert 1 < most_at_once(deployment, run_id) <= AT_ONCE
    steps_by_key = deployment.steps(run_id)
    assert {row.attempt for key, row in steps_by_key.items() if key.startswith("m.")} == {1}


def test_an_empty_list_completes_at_once(deployment: Deployment) -> None:
    run_id, status = deployment.run(found([]), mapped(), after_it())
    assert status == "completed"
    assert deployment.client.result(run_id) == {"after": []}
    assert set(deployment.steps(run_id)) == {"list", "m", "after"}


def test_with_fail_an_item_that_fails_ends_the_run(deployment: Deployment) -> None:
    run_id, status = deployment.run(found([1, 2, 3]), mapped("item_fails_once", 2, max_parallel=1), after_it())
    assert status == "failed"
    states = {key: row.status for key, row in deployment.steps(run_id).items()}
    assert states["m.1"] == "failed"
    assert (states["m.2"], states["m"], states["after"]) == ("cancelled", "cancelled", "cancelled")
    assert deployment.client.status(run_id)["error"] == "m.1: ValueError: 2"


def test_with_continue_an_item_that_fails_leaves_a_gap(deployment: Deployment) -> None:
    run_id, status = deployment.run(found([1, 2, 3]), mapped("item_fails_once", 2, on_failure="continue"), after_it())
    assert status == "completed"
    assert deployment.client.result(run_id) == {"after": [2, None, 6]}


@pytest.mark.parametrize("remedy", ["retry", "settle"])
def test_with_pause_an_item_that_fails_is_mended_and_joined(deployment: Deployment, remedy: str) -> None:
    run_id = deployment.enqueue(found([1, 2, 3]), mapped("item_fails_once", 2, on_failure="pause"), after_it())
    deployment.wait_for_status(run_id, "paused")
    if remedy == "retry":
        deployment.client.retry(run_id, "m.1")
    else:
        deployment.client.settle(run_id, "m.1", "by hand", "looked it up")
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"after": [2, 4 if remedy == "retry" else "by hand", 6]}


def test_an_item_that_fails_is_retried_by_the_step_s_policy(deployment: Deployment) -> None:
    policy = RetryPolicy(max_attempts=2, initial_delay_s=0.01, jitter=0)
    run_id, status = deployment.run(found([1, 2, 3]), mapped("item_fails_once", 2, retry=policy))
    assert status == "completed"
    assert deployment.client.result(run_id) == {"m": [2, 4, 6]}


@pytest.mark.parametrize(("value", "kind"), [("text", "str"), (None, "nothing")])
def test_what_is_no_list_fails_the_step(deployment: Deployment, value: Any, kind: str) -> None:
    run_id, status = deployment.run(Step("list", task_name("echo"), (value,)), mapped())
    assert status == "failed"
    assert f"must give a list, not {kind}" in deployment.step(run_id, "m").error


def test_a_mapped_run_is_paused_and_resumed_in_the_middle(deployment: Deployment) -> None:
    """Half of the items wait at a gate, so that it is the middle, however long the pause takes to come."""
    items = list(range(60))

    def some_are_done() -> bool:
        return bool(deployment.client.status(run_id)["counts"].get("completed", 0) > 5)

    with gate(deployment, uuid4().hex) as shut:
        run_id = deployment.enqueue(found(items), mapped("double_at_gate", shut, 30, max_parallel=3), after_it())
        wait_until(some_are_done, DEADLINE_S, "some items are done")
        deployment.client.pause(run_id)
        deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"after": [item * 2 for item in items]}
    assert most_at_once(deployment, run_id) <= 3
