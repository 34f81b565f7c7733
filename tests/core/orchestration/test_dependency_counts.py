"""The counters of open, unmet and failed dependencies: counted down, and computed afresh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock.core.orchestration.dependency_counts import count_down, count_open, recount
from tests.core.mapped import mapped
from tests.core.rows import step

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


@pytest.mark.parametrize("recounted", [False, True])
def test_what_else_a_map_came_after_is_not_taken_for_one_of_its_items(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, *, recounted: bool
) -> None:
    """It began because one predecessor had failed, and another one settles while its items are in work."""
    plan = [
        step("bad", on_failure="continue"),
        step("slow"),
        mapped(after="bad slow", over="input", trigger="any_failed"),
    ]
    run_id = controller.enqueue_workflow({"steps": plan, "task_description": "x"}, input=[1, 2, 3])
    worker.run_failing("bad")
    if recounted:
        controller.pause_workflow(run_id)
        worker.queue.clear()
        controller.resume_workflow(run_id)
    worker.run("slow")
    worker.run("m.0", 10)
    worker.run("m.1", 20)
    assert (rows.step(run_id, "m").open_deps, rows.states(run_id)["m"]) == (1, "running")
    worker.run("m.2", 30)
    assert rows.step(run_id, "m").result == [10, 20, 30]
    assert rows.run(run_id).status == "completed"


RETRY = {"max_attempts": 2, "initial_delay_s": 200.0}


@pytest.mark.parametrize(
    ("retried", "counters"),
    [({}, (1, 1, 1)), ({"retry": RETRY}, (2, 0, 0))],
    ids=["failed for good", "a retry is coming"],
)
def test_what_is_computed_afresh_is_what_was_counted_down(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    database: Database,
    retried: dict[str, Any],
    counters: tuple[int, int, int],
) -> None:
    """A failed step counts as open while its retry is coming."""
    plan = [
        step("a"),
        step("b", on_failure="continue", **retried),
        step("c"),
        step("d", "a b c", trigger="all_settled"),
    ]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    worker.run("a")
    worker.run_failing("b")
    counted = _counters(rows, run_id, "d")
    assert counted == counters
    rows.set_step(run_id, "d", open_deps=7, unmet_deps=7, failed_deps=7)
    database.transact(lambda connection, _: recount(connection, run_id))
    assert _counters(rows, run_id, "d") == counted
    with database.reading() as connection:
        assert count_open(connection, run_id) == rows.run(run_id).open_steps == 2 + bool(retried)


def test_those_that_wait_for_settled_steps_are_returned_with_their_counters(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, database: Database
) -> None:
    run_id = controller.enqueue_workflow([step("a"), step("b"), step("c", "a b"), step("d", "b")], task_description="x")
    worker.run("a")
    ids = [rows.step(run_id, key).id for key in "ab"]
    with database.reading() as connection:  # b is still to run: nothing of this is kept
        dependents = count_down(connection, ids[1:])
    assert {row.key: (row.open_deps, row.unmet_deps, row.failed_deps) for row in dependents} == {
        "c": (0, 1, 0),  # b has not completed
        "d": (0, 1, 0),
    }


def _counters(rows: Rows, run_id: str, key: str) -> tuple[int, int, int]:
    row = rows.step(run_id, key)
    return row.open_deps, row.unmet_deps, row.failed_deps
