"""Existing tasks as steps, unmodified; and the same tasks called as before, which are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock import Step
from tests.worker.deployment import task_name

if TYPE_CHECKING:
    from tests.worker.deployment import Deployment


@pytest.fixture(scope="module", autouse=True)
def _worker(deployment: Deployment) -> None:
    deployment.worker("kinds", concurrency=2)


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
    assert deployment.client.result(run_id, "a") == {"a": result}
    assert deployment.ledger.of(deployment.step_id(run_id)) == ledger
