"""Failures with a real worker: retries by timers in the database, time limits of steps and runs, and what a failure does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from interlock import Client, RetryPolicy, Step, Workflow
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, gate, held, task_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Row

    from tests.worker.deployment import Deployment

pytestmark = pytest.mark.long

APP = "tests.worker.author_tasks"
AGAIN = RetryPolicy(max_attempts=3, initial_delay_s=0.01, jitter=0)


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


def fails_until(attempt: int, kind: str = "ValueError", **options: Any) -> Step:
    """A step that succeeds in the given attempt."""
    return Step("a", f"{APP}.fails_until", (attempt, kind), **options)


def failures(deployment: Deployment, run_id: str, key: str = "a") -> list[Row[Any]]:
    """The history rows of a step's failures."""
    return [row for row in deployment.history(run_id, key) if row.to_state == "failed"]


# --- retries


def test_each_retry_waits_for_its_backoff(deployment: Deployment) -> None:
    """The delays are fractions of a second, and kept: 0.2, 0.4 and 0.8 s."""
    policy = RetryPolicy(max_attempts=4, initial_delay_s=0.2, multiplier=2, jitter=0)
    run_id, status = deployment.run(fails_until(4, retry=policy))
    assert status == "completed"
    rows = deployment.history(run_id, "a")
    states = [row.to_state for row in rows]
    assert states == ["pending", "running", *["failed", "running"] * 3, "completed"]
    failed = [index for index, state in enumerate(states) if state == "failed"]
    waited_s = [(rows[index + 1].created_at - rows[index].created_at).total_seconds() for index in failed]
    kept = [waited >= least - 0.05 for waited, least in zip(waited_s, (0.2, 0.4, 0.8), strict=True)]
    assert all(kept), waited_s
    assert sum(waited_s) < 8, "a retry waits for its timer, not for the redispatch of a lost message"


def test_the_last_attempt_s_failure_is_the_step_s(deployment: Deployment) -> None:
    run_id, status = deployment.run(fails_until(99, retry=AGAIN))
    assert status == "failed"
    row = deployment.step(run_id)
    assert (row.attempt, row.failures, row.error) == (3, 3, "ValueError: 3")
    assert deployment.client.status(run_id)["error"] == "a: ValueError: 3"
    assert all("fails_until" in failure.meta["traceback"] for failure in failures(deployment, run_id))


@pytest.mark.parametrize("name", ["Declined", f"{APP}.Declined", "ValueError"], ids=["bare", "qualified", "base class"])
def test_what_is_not_to_be_retried_is_not(deployment: Deployment, name: str) -> None:
    policy = RetryPolicy(max_attempts=5, initial_delay_s=0.01, non_retryable=(name,))
    run_id, status = deployment.run(fails_until(99, "Declined", retry=policy))
    assert status == "failed"
    assert deployment.step(run_id).attempt == 1


def test_another_exception_is_retried_beside_one_that_is_not(deployment: Deployment) -> None:
    policy = RetryPolicy(max_attempts=5, initial_delay_s=0.01, non_retryable=("Declined",))
    assert deployment.run(fails_until(2, "ValueError", retry=policy))[1] == "completed"


def test_a_retry_waits_in_the_database_not_in_a_worker(deployment: Deployment) -> None:
    """No message is on its way while the step waits; paused and resumed meanwhile, it is still tried when it is due."""
    policy = RetryPolicy(max_attempts=2, initial_delay_s=5, jitter=0)
    run_id = deployment.enqueue(fails_until(2, retry=policy))
    deployment.wait_for_status(run_id, "failed", "a")
    row = deployment.step(run_id)
    assert row.retry_at is not None
    assert row.dispatch_check_at is None
    deployment.client.pause(run_id)
    assert deployment.step(run_id).status == "failed"
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"


# --- time limits of a step


def test_a_step_over_its_time_limit_is_told_softly_and_fails(deployment: Deployment, shut: str) -> None:
    run_id, status = deployment.run(held("a", shut, timeout_s=2))
    assert status == "failed"
    (failure,) = failures(deployment, run_id)
    assert failure.meta["cause"] == "timeout"
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["begin", "stopped by SoftTimeLimitExceeded"]
    begun, ended = (row.created_at for row in deployment.history(run_id, "a")[1:])
    assert 1 < (ended - begun).total_seconds() < 8


def test_a_timeout_counts_as_a_failure_and_is_retried(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(held("a", shut, "done", timeout_s=3, retry=AGAIN))
    deployment.ledger.wait_for(deployment.step_id(run_id), "begin", 2)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert [failure.meta["cause"] for failure in failures(deployment, run_id)] == ["timeout"]
    assert deployment.step(run_id).failures == 1


def test_a_result_within_the_grace_of_the_soft_limit_counts(deployment: Deployment, shut: str) -> None:
    run_id, status = deployment.run(held("a", shut, "hurried", task="finish_anyway", timeout_s=2))
    assert status == "completed"
    assert deployment.client.result(run_id) == {"a": "hurried"}


def test_a_body_deaf_to_the_soft_limit_meets_the_hard_one_and_times_out_once(deployment: Deployment, shut: str) -> None:
    """The hard limit comes a grace after the soft one; Celery reports it twice, one failure is recorded, and a retry follows."""
    deaf = held("a", shut, task="hard_of_hearing", timeout_s=2, retry=AGAIN)
    with Client(deployment.producer_app(interlock_cancel_grace_s=3), actor="tester") as client:
        run_id = client.enqueue(Workflow("deaf", "Show that it is ended.", [deaf]))
    step_id = deployment.step_id(run_id)
    deployment.ledger.wait_for(step_id, "begin", 2)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    (failure,) = failures(deployment, run_id)
    assert failure.meta["cause"] == "timeout"
    assert failure.meta["error"].startswith("TimeLimitExceeded"), "it was Celery's own limit"
    row = deployment.step(run_id)
    assert (row.attempt, row.failures, row.losses) == (2, 1, 0)
    assert len(set(deployment.ledger.pids(step_id))) == 2, "the deaf body's process was ended"


# --- the deadline of a run


def _with_deadline(deployment: Deployment, deadline_s: float, *steps: Step) -> str:
    return deployment.client.enqueue(Workflow("late", "Show that it ends.", steps, deadline_s=deadline_s))


def test_a_run_over_its_deadline_fails_and_its_bodies_are_stopped(deployment: Deployment, shut: str) -> None:
    run_id = _with_deadline(deployment, 4, held("a", shut), Step("b", task_name("echo"), after="a"))
    step_id = deployment.begun(run_id)["a"]
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "failed"
    assert "deadline" in deployment.client.status(run_id)["error"]
    assert {row.status for row in deployment.steps(run_id).values()} == {"cancelled"}
    deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")


def test_a_run_that_waits_for_a_person_beyond_its_deadline_is_cancelled(deployment: Deployment) -> None:
    run_id = _with_deadline(deployment, 0.5, Step("a", approval=True))
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "cancelled"


def test_a_deadline_does_not_run_while_paused(deployment: Deployment, shut: str) -> None:
    run_id = _with_deadline(deployment, 5, held("a", shut, "done"))
    deployment.begun(run_id)
    deployment.client.pause(run_id, mode="drain")
    probe = _with_deadline(deployment, 5, Step("a", approval=True))
    assert deployment.client.wait(probe, timeout_s=DEADLINE_S) == "cancelled"
    assert deployment.client.status(run_id)["status"] == "paused"
    deployment.client.resume(run_id)
    deployment.ledger.open_gate(shut)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"


# --- what a failure does to its workflow


def test_with_fail_the_run_fails_and_everything_else_ends(deployment: Deployment, shut: str) -> None:
    run_id = deployment.enqueue(
        held("busy", shut),
        Step("a", task_name("fail"), ("no",), after=()),
        Step("b", task_name("echo"), after="a"),
        Step("asks", approval=True),
    )
    busy_id = deployment.step_id(run_id, "busy")
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "failed"
    states = {key: row.status for key, row in deployment.steps(run_id).items()}
    assert states == {"busy": "cancelled", "a": "failed", "b": "cancelled", "asks": "cancelled"}
    ends: tuple[list[str], ...] = (["begin", "stopped by StepInterrupted"], [])  # it had begun, or never did
    wait_until(lambda: deployment.ledger.of(busy_id) in ends, DEADLINE_S, "the body is stopped")


def test_with_continue_the_run_goes_on_without_the_step(deployment: Deployment) -> None:
    run_id, status = deployment.run(
        Step("a", task_name("fail"), ("no",), on_failure="continue"),
        Step("needs", task_name("echo"), after="a"),
        Step("mends", task_name("echo"), ("mended",), after="a", trigger="any_failed"),
        Step("last", task_name("echo"), ("last",), after=["needs", "mends"], trigger="all_settled"),
    )
    assert status == "completed"
    states = {key: row.status for key, row in deployment.steps(run_id).items()}
    assert states == {"a": "failed", "needs": "skipped", "mends": "completed", "last": "completed"}


def _paused_by_failure(deployment: Deployment, shut: str) -> str:
    run_id = deployment.enqueue(
        fails_until(2, on_failure="pause"),
        held("busy", shut, "kept"),
        Step("b", task_name("echo"), ({"$expr": "results.a"},), after="a"),
    )
    deployment.wait_for_status(run_id, "paused")
    assert deployment.client.status(run_id)["pause"]["by"] == "engine"
    assert deployment.client.status(run_id)["pause"]["mode"] == "drain"
    deployment.ledger.open_gate(shut)
    return run_id


def test_with_pause_the_run_waits_and_a_retry_is_done_at_resume(deployment: Deployment, shut: str) -> None:
    run_id = _paused_by_failure(deployment, shut)
    deployment.client.retry(run_id, "a", "the cause is gone")
    assert deployment.step(run_id).status == "failed", "nothing moves while paused"
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"busy": "kept", "b": 2}


def test_with_pause_a_result_given_by_hand_counts_at_resume(deployment: Deployment, shut: str) -> None:
    run_id = _paused_by_failure(deployment, shut)
    deployment.client.settle(run_id, "a", "by hand", "measured it myself")
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
    assert deployment.client.result(run_id) == {"busy": "kept", "b": "by hand"}
    settled = deployment.history(run_id, "a")[-1]
    assert (settled.transitioned_by, settled.transition_reason) == ("tester", "measured it myself")


def test_with_pause_a_resume_without_a_remedy_fails_the_run(deployment: Deployment, shut: str) -> None:
    run_id = _paused_by_failure(deployment, shut)
    deployment.client.resume(run_id)
    assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "failed"
