"""Of a step that takes the slow path nothing is built anew: statements are constants, and their parameters differ."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.sql import coercions

from tests.core.rows import step

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core import WorkflowController
    from tests.core.worker_double import WorkerDouble


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where a part of a statement was built, one entry for each: module and line of the core."""
    places: list[str] = []
    expect: Callable[..., Any] = coercions.expect

    def noted(*args: Any, **options: Any) -> Any:
        ours = [frame for frame in traceback.extract_stack() if "/interlock/core/" in frame.filename]
        places.append(f"{ours[-1].name} in {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "elsewhere")
        return expect(*args, **options)

    monkeypatch.setattr(coercions, "expect", noted)
    return places


@pytest.mark.parametrize("core_url", ["sqlite"], indirect=True)
def test_a_link_of_a_chain_builds_nothing(
    controller: WorkflowController, worker: WorkerDouble, built: list[str]
) -> None:
    plan = [step(f"s{number}", *([f"s{number - 1}"] if number else [])) for number in range(4)]
    controller.enqueue_workflow(plan, task_description="x")
    worker.run("s0")
    built.clear()
    worker.run("s1")
    worker.run("s2")
    assert built == []


@pytest.mark.parametrize("core_url", ["sqlite"], indirect=True)
def test_a_failure_that_is_tried_again_builds_nothing(
    controller: WorkflowController, worker: WorkerDouble, built: list[str]
) -> None:
    plan = [step("a", retry={"max_attempts": 5, "initial_delay_s": 0.0, "jitter": 0.0}), step("b", "a")]
    controller.enqueue_workflow(plan, task_description="x")
    for _ in range(3):  # until each statement has been compiled
        built.clear()
        worker.run_failing("a")
    assert built == []
