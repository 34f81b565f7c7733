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


@pytest.mark.parametrize("named", ["Declined", "tests.worker.tasks_app.Refusal"])
def test_the_class_that_was_raised_and_its_bases_decide_where_celery_gives_another(
    deployment: Deployment, named: str
) -> None:
    """It cannot be pickled, so that Celery's signal has a wrapper, and a hook that raises even keeps the signal away."""
    policy = RetryPolicy(max_attempts=3, initial_delay_s=0.05, non_retryable=(named,))
    for task in ("declines", "fails_under_a_hook"):
        run_id, status = deployment.run(Step("a", task_name(task), retry=policy))
        assert (status, deployment.step(run_id).attempt) == ("failed", 1)
        assert deployment.step(run_id).error == "Declined: 402 no"


def test_the_exception_given_to_self_retry_is_named_where_celery_keeps_another(deployment: Deployment) -> None:
    run_id, _ = deployment.run(Step("a", task_name("declines"), kwargs={"asks": True}))
    failed = [row.meta["error"] for row in deployment.history(run_id, "a") if row.to_state == "failed"]
    assert failed == ["Declined: 402 no"] * 2


def test_an_exception_that_cannot_say_what_is_wrong_is_recorded_by_its_name(deployment: Deployment) -> None:
    run_id, status = deployment.run(Step("a", task_name("raises_mute")))
    assert (status, deployment.step(run_id).error, deployment.step(run_id).losses) == ("failed", "Mute", 0)


def test_a_retry_at_a_time_without_a_zone_is_at_that_time_of_utc(deployment: Deployment) -> None:
    run_id, status = deployment.run(Step("a", task_name("asks_for_eta"), (None,)))
    step = deployment.step(run_id)
    assert (status, step.attempt, step.celery_retries, step.losses) == ("completed", 2, 1, 0)


@pytest.mark.parametrize(
    ("how", "error"), [("exit", "SystemExit: 2"), ("interrupt", "KeyboardInterrupt"), ("base", "Abandoned: all")]
)
def test_a_body_that_leaves_by_a_base_exception_has_failed_once(deployment: Deployment, how: str, error: str) -> None:
    run_id, status = deployment.run(Step("a", task_name("exits"), (how,)))
    step = deployment.step(run_id)
    assert (status, step.error, step.attempt, step.failures, step.losses) == ("failed", error, 1, 1, 0)
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["exits"]


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
