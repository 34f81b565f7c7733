"""Existing tasks as steps, unmodified; and the same tasks called as before, which are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock import Step
from tests.worker.deployment import DEADLINE_S, task_name

if TYPE_CHECKING:
    from tests.worker.deployment import Deployment


@pytest.fixture(scope="module")
def deployment(common_deployment: Deployment) -> Deployment:
    """Shared with other modules, its worker too."""
    return common_deployment


KINDS = [
    pytest.param("add", (1, 2), 3, ["add"], id="app.task"),
    pytest.param("tests.shared", (4,), 8, ["shared"], id="shared_task"),
    pytest.param("based", (4,), 5, ["before_start", "call", "body", "on_success"], id="own base class"),
    pytest.param("invoice", ({"amount": 3},), {"total": 6}, ["invoice"], id="pydantic=True"),
    pytest.param("tests.by_class", (1,), 101, ["by_class"], id="register_task"),
    pytest.param("ignores_result", (7,), 7, ["ignores_result"], id="ignore_result=True"),
    pytest.param("acks_late", (7,), 7, ["acks_late"], id="acks_late=True"),
    pytest.param("flaky", (3,), 3, ["try"] * 3, id="autoretry_for"),
]


def _full(name: str) -> str:
    return name if name.startswith("tests.") else task_name(name)


@pytest.mark.parametrize(("name", "args", "result", "ledger"), KINDS)
def test_a_task_of_any_kind_is_a_step_as_it_is(
    deployment: Deployment,
    name: str,
    args: tuple[Any, ...],
    result: Any,
    ledger: list[str],
) -> None:
    run_id, status = deployment.run(Step("a", _full(name), args))
    assert status == "completed"
    assert deployment.client.result(run_id, "a") == result
    assert deployment.ledger.of(deployment.step_id(run_id)) == ledger


@pytest.mark.parametrize(("name", "args", "result", "ledger"), KINDS)
def test_the_same_task_called_directly_is_no_step_and_behaves_as_always(
    deployment: Deployment,
    name: str,
    args: tuple[Any, ...],
    result: Any,
    ledger: list[str],
) -> None:
    """Its result goes to the result backend, its retries through the broker; nothing of it is in our tables."""
    before = len(deployment.client.list(limit=1_000))
    answer = deployment.app.send_task(_full(name), args=args)
    if name != "ignores_result":
        assert answer.get(timeout=DEADLINE_S) == result
    deployment.ledger.wait_for(answer.id, ledger[-1], ledger.count(ledger[-1]))
    assert deployment.ledger.of(answer.id) == ledger
    answer.forget()
    assert len(deployment.client.list(limit=1_000)) == before


def test_a_step_leaves_nothing_in_the_result_backend(deployment: Deployment) -> None:
    run_id, _ = deployment.run(Step("a", task_name("add"), (1, 2)))
    backend = deployment.app.backend
    assert backend.get(backend.get_key_for_task(deployment.step(run_id).task_id)) is None


def test_retries_of_the_task_itself_are_attempts_in_the_history_with_their_exceptions(deployment: Deployment) -> None:
    run_id, status = deployment.run(Step("a", task_name("flaky"), (3,)))
    assert status == "completed"
    step = deployment.step(run_id)
    assert (step.attempt, step.celery_retries, step.failures) == (3, 2, 0)
    failed = [row for row in deployment.history(run_id, "a") if row.to_state == "failed"]
    assert [row.meta["error"] for row in failed] == ["ValueError: 1", "ValueError: 2"]
    assert len({row.meta["task_id"] for row in failed} | {step.task_id}) == 3


def test_retry_with_other_arguments_is_run_with_them(deployment: Deployment) -> None:
    run_id, status = deployment.run(Step("a", task_name("grows"), (1,)))
    assert status == "completed"
    assert deployment.client.result(run_id, "a") == 3
    expected = [f"number {number} retries {number - 1}" for number in (1, 2, 3)]
    assert deployment.ledger.of(deployment.step_id(run_id)) == expected


def test_a_task_that_has_used_up_its_own_retries_fails_with_what_it_gave(deployment: Deployment) -> None:
    run_id, status = deployment.run(Step("a", task_name("gives_up")))
    assert status == "failed"
    assert deployment.step(run_id).error == "KeyError: 'always'"
    assert deployment.ledger.of(deployment.step_id(run_id)) == ["try", "try"]


def test_retry_called_directly_goes_through_the_broker(deployment: Deployment) -> None:
    answer = deployment.app.send_task(task_name("grows"), args=(1,))
    assert answer.get(timeout=DEADLINE_S) == 3
    assert len(deployment.ledger.of(answer.id)) == 3
    answer.forget()
