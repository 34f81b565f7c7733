"""How a step may end: results and errors stored and passed on, and everything that cannot be stored, named."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from interlock import Client, Step, Workflow
from interlock.core.model.retry import RetryPolicy
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate, held, task_name

if TYPE_CHECKING:
    from tests.worker.deployment import Deployment


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


def test_results_are_stored_and_passed_to_dependents(deployment: Deployment) -> None:
    a = Step("a", task_name("add"), (1, 2))
    b = Step("b", task_name("echo"), ({"sum": a.result, "text": "results.a"},), after=a)
    c = Step("c", task_name("total"), ([a.result, b.result["sum"], 10],), after=[a, b])
    run_id, status = deployment.run(a, b, c)
    assert status == "completed"
    results = {key: row.result for key, row in deployment.steps(run_id).items()}
    assert results == {"a": 3, "b": {"sum": 3, "text": "results.a"}, "c": 16}


def test_none_is_a_result_like_another(deployment: Deployment) -> None:
    a = Step("a", task_name("echo"))
    run_id, status = deployment.run(a, Step("b", task_name("echo"), ([a.result],), after=a))
    assert status == "completed"
    assert deployment.client.result(run_id) == {"b": [None]}
    assert deployment.client.result(run_id, "a") is None


def test_an_exception_is_stored_with_its_traceback_and_fails_the_run(deployment: Deployment) -> None:
    run_id, status = deployment.run(Step("a", task_name("fail"), ("boom",)), Step("b", task_name("echo"), after="a"))
    assert status == "failed"
    assert deployment.step(run_id).error == "RuntimeError: boom"
    assert deployment.step(run_id, "b").status == "cancelled"
    assert deployment.client.status(run_id)["error"] == "a: RuntimeError: boom"
    failed = next(row for row in deployment.history(run_id, "a") if row.to_state == "failed")
    assert "in fail" in failed.meta["traceback"]
    assert failed.meta["error"] == "RuntimeError: boom"


def test_a_failure_is_retried_as_the_policy_says(deployment: Deployment) -> None:
    policy = RetryPolicy(max_attempts=3, initial_delay_s=0.05)
    run_id, status = deployment.run(Step("a", task_name("fail"), ("boom",), retry=policy))
    assert (status, deployment.step(run_id).failures) == ("failed", 3)
    refused = RetryPolicy(max_attempts=3, initial_delay_s=0.05, non_retryable=("RuntimeError",))
    run_id, status = deployment.run(Step("a", task_name("fail"), ("boom",), retry=refused))
    assert (status, deployment.step(run_id).failures) == ("failed", 1)


@pytest.mark.parametrize("how", ["return", "swallow", "raise", "ignore"])
def test_a_body_that_asks_for_a_retry_and_goes_on_is_run_again(deployment: Deployment, how: str) -> None:
    """`self.retry(throw=False)`: Celery has sent the next try by then, and its result is the one that stays."""
    run_id, status = deployment.run(Step("a", task_name("goes_on"), (how,)))
    assert status == "completed"
    step = deployment.step(run_id)
    assert (step.result, step.attempt, step.failures, step.celery_retries) == (2, 2, 0, 1)
    assert deployment.moves(run_id) == ["pending", "running", "failed", "running", "completed"]


def test_the_tasks_own_limit_bounds_retries_that_raise_nothing(deployment: Deployment) -> None:
    run_id, status = deployment.run(Step("a", task_name("goes_on"), ("always",)))
    assert status == "failed"
    assert "MaxRetriesExceededError" in deployment.step(run_id).error
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["try", "try"]


@pytest.mark.parametrize(
    ("task", "args", "named"),
    [
        ("returns_object", (), "result['deep'][0]"),
        ("returns_much", (20_000,), "20,002 bytes"),
        ("ignores", (), "Ignore"),
        ("rejects", (), "Reject"),
        ("replaces", (), "replace"),
    ],
)
def test_what_cannot_be_recorded_fails_the_step_and_names_the_cause(
    deployment: Deployment, task: str, args: tuple[object, ...], named: str
) -> None:
    """It cannot succeed the next time either, so it is not tried again, whatever the policy says."""
    policy = RetryPolicy(max_attempts=3, initial_delay_s=0.05)
    run_id, status = deployment.run(Step("a", task_name(task), args, retry=policy))
    assert status == "failed"
    step = deployment.step(run_id)
    assert named in step.error
    assert step.attempt == 1


def test_a_task_that_no_worker_knows_is_sent_again_and_then_fails_by_name(deployment: Deployment) -> None:
    """A worker of an older release may drop it while one of the next release is coming up."""
    run_id, status = deployment.run(Step("a", "shop.not_deployed_yet"))
    assert status == "failed"
    step = deployment.step(run_id)
    assert "'shop.not_deployed_yet'" in step.error
    assert step.dispatches >= 5
    assert deployment.moves(run_id) == ["pending", "running", "failed"]


def test_arguments_that_cannot_be_evaluated_fail_the_step_before_it_is_sent(deployment: Deployment) -> None:
    expression = {"$expr": "sum(results.a)"}
    run_id, status = deployment.run(
        Step("a", task_name("echo"), ("no numbers",)), Step("b", task_name("echo"), (expression,), after="a")
    )
    assert status == "failed"
    assert deployment.step(run_id, "b").error.startswith("arguments: ")
    assert deployment.ledger.of(deployment.step_id(run_id, "b")) == []


def test_a_body_over_its_soft_time_limit_has_failed_with_a_timeout(deployment: Deployment) -> None:
    with gate(deployment, uuid4().hex) as shut:
        run_id, status = deployment.run(held("a", shut, task="over_time"))
        assert status == "failed"
        limited, status = deployment.run(held("a", shut, timeout_s=2))
    for each in (run_id, limited):
        failed = next(row for row in deployment.history(each, "a") if row.to_state == "failed")
        assert failed.meta["cause"] == "timeout"
        assert deployment.step(each).failures == 1


def test_a_body_that_does_not_hear_its_limit_is_ended_by_the_hard_one(deployment: Deployment) -> None:
    """MAIN kills the process and is the only one that can say so; nobody waits for the lease."""
    with gate(deployment, uuid4().hex) as shut:
        run_id, status = deployment.run(held("a", shut, task="over_hard_limit"))
    assert status == "failed"
    row = deployment.step(run_id)
    assert (row.failures, row.losses) == (1, 0)
    assert "TimeLimitExceeded" in row.error


def test_on_failure_continue_goes_on_without_it(deployment: Deployment) -> None:
    run_id, status = deployment.run(
        Step("a", task_name("fail"), ("boom",), on_failure="continue"),
        Step("b", task_name("echo"), ("b",), after="a", trigger="all_settled"),
        Step("c", task_name("echo"), ("c",), after="a"),
    )
    assert status == "completed"
    assert {key: row.status for key, row in deployment.steps(run_id).items()} == {
        "a": "failed",
        "b": "completed",
        "c": "skipped",
    }


def test_a_producer_without_routes_leaves_the_dispatch_to_the_engine(deployment: Deployment) -> None:
    urls = {"database_url": deployment.database_url, "broker_url": deployment.broker.url(0)}
    with Client(**urls, redis_url=deployment.events.url(0)) as client:
        run_id = client.enqueue(Workflow("far", "No app at hand.", [Step("a", task_name("add"), (1, 2))]))
        assert client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    wait_until(lambda: deployment.ledger.of(deployment.step_id(run_id)) == ["add"], DEADLINE_S, "the body ran once")
