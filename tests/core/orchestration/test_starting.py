"""Steps at their start: conditions, and what follows where one cannot be evaluated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.rows import step

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")
ON = {"on_failure": "continue"}
BROKEN = "abs(results.a) > `0`"  # a's result is text: abs() fails when it is evaluated, not when it is read


def _enqueue(controller: WorkflowController, *plan: dict[str, object], document: object = None) -> str:
    return controller.enqueue_workflow(list(plan), task_description="x", input=document)


@pytest.mark.parametrize(("document", "state"), [({"n": 1}, "pending"), ({"n": 0}, "skipped"), (None, "skipped")])
def test_a_condition_over_the_input_decides_at_the_start(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    document: object,
    state: str,
) -> None:
    run_id = _enqueue(controller, step("a", when="input.n > `0`"), step("b", "a"), document=document)
    assert rows.states(run_id) == {"a": state, "b": state}
    assert worker.queued == (["a"] if state == "pending" else [])
    assert rows.run(run_id).status == ("executing" if worker.queue else "completed")


def test_a_condition_that_cannot_be_evaluated_fails_the_step(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """By the engine: pending, running and failed in one transaction; it is not retried."""
    run_id = _enqueue(controller, step("a"), step("b", "a", when=BROKEN, retry={"max_attempts": 5}), step("c"))
    worker.run("a", "text")
    assert rows.path(run_id, "b") == ["pending", "running", "failed"]
    assert rows.run(run_id).status == "failed"
    assert "when: " in rows.run(run_id).error
    assert rows.states(run_id)["c"] == "cancelled"
    assert {row.transitioned_by for row in rows.history(run_id) if row.step_key == "b"} == {"user", "engine"}


def test_a_condition_that_fails_with_continue_skips_its_dependents(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(
        controller,
        step("a"),
        step("b", "a", when=BROKEN, **ON),
        step("c", "b"),
        step("d", "a"),
        step("e", "b", trigger="any_failed"),
    )
    worker.run("a", "text")
    assert rows.states(run_id) == {"a": "completed", "b": "failed", "c": "skipped", "d": "pending", "e": "pending"}
    assert worker.queued == ["d", "e"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_failing_condition_counts_once_for_those_that_wait_for_it(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """Hopeless and ready steps that settle together: `last` must still wait for `slow`."""
    run_id = _enqueue(
        controller,
        step("a", **ON),
        step("b", "a", trigger="all_settled", when="abs(states.a) > `0`", **ON),
        step("slow"),
        step("lost", "a b"),
        step("last", "lost slow", trigger="all_settled"),
    )
    worker.run_failing("a")
    assert worker.queued == ["slow"]
    assert rows.step(run_id, "last").open_deps == 1
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_step_that_a_failing_condition_makes_ready_is_dispatched_once(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(
        controller,
        step("a", **ON),
        step("b", "a", trigger="all_settled", when="abs(states.a) > `0`", **ON),
        step("alarm", "a b", trigger="any_failed"),
    )
    worker.run_failing("a")
    assert worker.queued == ["alarm"]
    assert rows.step(run_id, "alarm").attempt == 1


def test_a_root_whose_condition_fails_ends_the_run_before_anything_starts(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a"), step("b", when="abs(input) > `0`"), step("c"), document="text")
    assert rows.run(run_id).status == "failed"
    assert rows.states(run_id) == {"a": "cancelled", "b": "failed", "c": "cancelled"}
    assert worker.queue == []
