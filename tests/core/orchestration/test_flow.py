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


@pytest.mark.parametrize("first_fails", [True, False])
def test_by_default_a_failure_ends_the_run_and_cancels_the_rest(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    first_fails: bool,  # noqa: FBT001 - a parameter
) -> None:
    run_id = _enqueue(controller, step("a"), step("b"), step("c", "a"), step("d", "b"))
    worker.claim("b")
    if not first_fails:
        worker.run("a")
        worker.claim("c")
    key = "a" if first_fails else "c"
    if first_fails:
        worker.claim("a")
    worker.fail(key)
    run = rows.run(run_id)
    assert (run.status, run.error, run.open_steps) == ("failed", f"{key}: ValueError: no", 0)
    states = rows.states(run_id)
    assert states[key] == "failed"
    assert states["b"] == states["d"] == "cancelled"
    assert rows.history(run_id)[-1].transition_reason == f"step {key} failed: ValueError: no"
    assert [interrupt.task_id for interrupt in worker.interrupts] == [worker.held["b"].task_id]


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


# conditions


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


def test_a_condition_sees_results_and_states(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = _enqueue(
        controller,
        step("a"),
        step("b", **ON),
        step("many", "a", when="results.a.n > `10`"),
        step("few", "a", when="results.a.n <= `10`"),
        step("mend", "b", trigger="all_settled", when="states.b == 'failed'"),
    )
    worker.run("a", {"n": 3})
    worker.run_failing("b")
    assert worker.queued == ["few", "mend"]
    assert rows.states(run_id)["many"] == "skipped"


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


def test_a_run_in_which_everything_is_skipped_completes(controller: WorkflowController, rows: Rows) -> None:
    run_id = _enqueue(controller, step("a", when="input"), step("b", "a"), step("c", "b"))
    assert rows.run(run_id).status == "completed"
    assert set(rows.states(run_id).values()) == {"skipped"}


@pytest.mark.parametrize("counted", [0, 1])
def test_a_run_whose_steps_were_counted_wrong_does_not_end_before_its_last_step(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, counted: int
) -> None:
    """Rows that another program has written, or an older version: the end is looked at before it is believed."""
    run_id = controller.enqueue_workflow([step("a"), step("b"), step("c", "b")], task_description="x")
    rows.set_run(run_id, open_steps=counted)
    worker.run("a")
    assert (rows.run(run_id).status, rows.run(run_id).open_steps) == ("executing", 2)
    worker.run("b")
    assert rows.run(run_id).status == "executing"
    worker.run("c")
    assert rows.run(run_id).status == "completed"
