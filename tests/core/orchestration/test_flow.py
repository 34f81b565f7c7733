"""What follows when steps settle: triggers, conditions, skips, failures, pauses, and the end of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.rows import step

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")
ON = {"on_failure": "continue"}
BROKEN = "abs(results.a) > `0`"  # a's result is text: abs() fails when it is evaluated, not when it is read


def _enqueue(controller: WorkflowController, *plan: dict[str, object], document: object = None) -> str:
    return controller.enqueue_workflow(list(plan), task_description="x", input=document)


def test_steps_start_when_all_they_wait_for_has_completed(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a"), step("b"), step("c", "a b"), step("d", "c"))
    assert worker.queued == ["a", "b"]
    worker.run("b")
    assert worker.queued == ["a"]
    worker.run("a", {"n": 1})
    assert worker.queued == ["c"]
    worker.run("c")
    worker.run("d")
    run = rows.run(run_id)
    assert (run.status, run.open_steps) == ("completed", 0)
    assert run.completed_at >= rows.step(run_id, "d").completed_at
    assert rows.step(run_id, "a").result == {"n": 1}
    assert rows.path(run_id, "c") == ["pending", "running", "completed"]
    assert rows.path(run_id) == ["draft", "planning", "executing", "completed"]


def test_a_step_that_returns_none_has_a_result(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    database: Database,
) -> None:
    """JSON null is a result; NULL is none."""
    from sqlalchemy import JSON, func, select, type_coerce  # noqa: PLC0415 - only here

    from interlock.core.database.tables import WorkflowStep  # noqa: PLC0415 - only here

    run_id = _enqueue(controller, step("a"))
    worker.run("a", None)
    assert rows.step(run_id, "a").result is None
    with database.reading() as connection:
        column = type_coerce(WorkflowStep.result, JSON)
        assert connection.scalar(select(func.count()).where(column.is_not(None), WorkflowStep.run_id == run_id)) == 1


def test_continue_skips_what_needed_the_step_and_completes_the_rest(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a", **ON), step("b", "a"), step("c", "b"), step("d"), step("e", "d"))
    worker.run_failing("a")
    assert rows.states(run_id) == {
        "a": "failed",
        "b": "skipped",
        "c": "skipped",
        "d": "pending",
        "e": "pending",
    }
    worker.run_all()
    assert rows.run(run_id).status == "completed"
    assert rows.path(run_id, "b") == ["pending", "skipped"]


def test_skips_are_in_the_transaction_of_the_failure(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """A chain of any length is skipped at once, and told in one delivery with its cause."""
    chain = [step("s0", **ON), *(step(f"s{n}", f"s{n - 1}") for n in range(1, 30))]
    run_id = _enqueue(controller, *chain)
    worker.claim("s0")
    worker.changes.clear()
    worker.fail("s0")
    assert [change.to_state for change in worker.changes] == ["failed", *["skipped"] * 29, "completed"]
    assert [change.seq for change in worker.changes] == [row.seq for row in rows.history(run_id)][-31:]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("complete", {"cleanup": "pending", "alarm": "skipped", "next": "pending"}),
        ("fail", {"cleanup": "pending", "alarm": "pending", "next": "skipped"}),
        ("skip", {"cleanup": "pending", "alarm": "skipped", "next": "skipped"}),
    ],
)
def test_the_three_triggers_by_how_the_dependency_ended(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    outcome: str,
    expected: dict[str, str],
) -> None:
    condition = {"when": "input.go"} if outcome == "skip" else {}
    run_id = _enqueue(
        controller,
        step("first"),
        step("a", "first", **ON, **condition),
        step("cleanup", "a", trigger="all_settled"),
        step("alarm", "a", trigger="any_failed"),
        step("next", "a"),
        document={"go": False},
    )
    worker.run("first")
    if outcome == "complete":
        worker.run("a")
    elif outcome == "fail":
        worker.run_failing("a")
    assert {key: rows.states(run_id)[key] for key in expected} == expected
    started = sorted(key for key, state in expected.items() if state == "pending")
    assert worker.queued == started
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_all_settled_waits_for_all(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = _enqueue(controller, step("a", **ON), step("b"), step("join", "a b", trigger="all_settled"))
    worker.run_failing("a")
    assert worker.queued == ["b"]
    worker.run("b")
    assert worker.queued == ["join"]
    worker.run("join")
    assert rows.run(run_id).status == "completed"


def test_a_step_whose_trigger_is_lost_is_skipped_while_others_still_run(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a", **ON), step("b"), step("join", "a b"), step("after", "join b"))
    worker.run_failing("a")
    assert rows.states(run_id) == {"a": "failed", "b": "pending", "join": "skipped", "after": "skipped"}
    worker.run("b")
    assert rows.run(run_id).status == "completed"


def test_the_alarm_starts_at_the_first_failure_and_once(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a", **ON), step("b", **ON), step("alarm", "a b", trigger="any_failed"))
    worker.run_failing("a")
    assert worker.queued == ["alarm", "b"]
    worker.run_failing("b")
    worker.run("alarm")
    assert rows.run(run_id).status == "completed"
    assert rows.step(run_id, "alarm").attempt == 1
