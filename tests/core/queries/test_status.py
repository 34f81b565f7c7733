"""`run_status`: what it says of a run and its steps, and that it stays quick."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import WorkflowController
from interlock.core.attempts.outcomes import Failure
from interlock.core.database.types import seconds_after
from interlock.core.queries.status import run_status
from tests.core.rows import counted, step, steps
from tests.growth import grows_linearly

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from interlock.core import Database
    from interlock.core.settings import Settings
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


def _status(controller: WorkflowController, run_id: str) -> dict[str, Any]:
    status = controller.get_workflow_status(run_id)
    assert status is not None
    return status


def _step(controller: WorkflowController, run_id: str, key: str) -> dict[str, Any]:
    (found,) = [item for item in _status(controller, run_id)["steps"] if item["key"] == key]
    return dict(found)


def test_a_run_says_where_it_comes_from_and_until_when_it_may_take(
    controller: WorkflowController, worker: WorkerDouble
) -> None:
    plan = {"name": "n", "deadline_s": 60, "steps": steps("a")}
    run_id = controller.enqueue_workflow(plan, task_description="x", input={"n": [1, 2]})
    status = _status(controller, run_id)
    assert status["forked_from"] is None
    assert status["started_at"] < status["deadline_at"]
    assert status["input_bytes"] == len('{"n":[1,2]}')
    assert "input" not in status
    worker.run_failing("a")
    again = _status(controller, controller.rerun_workflow(run_id))
    assert (again["forked_from"], again["input_bytes"]) == (run_id, status["input_bytes"])
    assert _status(controller, run_id)["deadline_at"] is None


def test_another_sessions_run_has_no_status(controller: WorkflowController, session: Session) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    assert WorkflowController(session, "other").get_workflow_status(run_id) is None


def test_a_steps_attempts_failures_and_losses_are_counted_apart(
    controller: WorkflowController, worker: WorkerDouble
) -> None:
    retry = {"max_attempts": 5, "initial_delay_s": 0.0}
    run_id = controller.enqueue_workflow(steps("a", retry=retry), task_description="x")
    assert _step(controller, run_id, "a")["attempts"] == {"attempt": 1, "failures": 0, "losses": 0}
    worker.run_failing("a")
    worker.run_failing("a")
    worker.run_failing("a", Failure("worker_lost", "gone"))
    assert _step(controller, run_id, "a")["attempts"] == {"attempt": 4, "failures": 2, "losses": 1}


def test_the_time_in_each_state_is_what_the_history_says(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    """Each stay is summed up to the next move; a settled step's clock has stopped."""
    retry = {"max_attempts": 2, "initial_delay_s": 0.0}
    run_id = controller.enqueue_workflow(steps("a", retry=retry), task_description="x")
    worker.run_failing("a")
    worker.claim("a")
    controller.pause_workflow(run_id)
    controller.resume_workflow(run_id)
    rows.set_step(run_id, "a", drain_until=None, drain_token=None, drain_task_id=None)
    worker.queue.clear()
    moves = [row for row in rows.history(run_id) if row.step_key == "a"]
    expected: dict[str, timedelta] = {}
    for here, following in pairwise(moves):
        stay = following.created_at - here.created_at
        expected[here.to_state] = expected.get(here.to_state, timedelta()) + stay
    durations = _step(controller, run_id, "a")["durations"]
    assert set(durations) == {"pending", "running", "failed", "paused"}
    for state in ("pending", "failed", "paused"):
        assert durations[state] == pytest.approx(expected[state].total_seconds(), abs=0.002)
    # It runs since the resume, so that its time in `running` is more than that of the stays that are over.
    assert durations["running"] > expected["running"].total_seconds() - 0.002
    controller.cancel_workflow(run_id)
    ended = _step(controller, run_id, "a")["durations"]
    assert "cancelled" not in ended
    assert ended["running"] >= durations["running"]
    assert _step(controller, run_id, "a")["durations"] == ended


def test_time_in_a_state_goes_on_until_the_step_is_settled(
    controller: WorkflowController, worker: WorkerDouble
) -> None:
    plan = [step("a", retry={"max_attempts": 2, "initial_delay_s": 100.0}), step("b", on_failure="continue")]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    worker.run_failing("a")
    worker.run_failing("b")
    assert "failed" in _step(controller, run_id, "a")["durations"]  # its retry is coming
    assert set(_step(controller, run_id, "b")["durations"]) == {"pending", "running"}


def test_a_draft_has_no_durations(controller: WorkflowController) -> None:
    run = controller.create_workflow("x", plan=steps("a"))
    assert _step(controller, run.id, "a")["durations"] == {}


def test_a_waiting_step_says_what_it_asks_of_whom_until_when(
    controller: WorkflowController, worker: WorkerDouble
) -> None:
    approval = {"prompt": "Publish?", "approvers": ["ana", "ben"], "deadline_s": 60}
    plan = [step("a"), {"key": "gate", "after": ["a"], "approval": approval}]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    assert _step(controller, run_id, "gate")["waiting_for"] is None
    worker.run("a")
    asked = _step(controller, run_id, "gate")["waiting_for"]
    assert (asked["prompt"], asked["approvers"], asked["decision"]) == ("Publish?", ["ana", "ben"], None)
    assert asked["requested_at"] < asked["deadline_at"]
    controller.approve_step(run_id, "gate", transitioned_by="ana")
    assert _step(controller, run_id, "gate")["waiting_for"] is None
    assert asked["request_id"]


def test_the_items_of_a_mapped_step_are_right_behind_it(controller: WorkflowController, worker: WorkerDouble) -> None:
    plan = [step("a"), step("m", "a", map={"over": "input"}), step("n", "a", map={"over": "input"}), step("z", "m n")]
    run_id = controller.enqueue_workflow(plan, task_description="x", input=[1, 2])
    worker.run("a")
    keys = [item["key"] for item in _status(controller, run_id)["steps"]]
    assert keys == ["a", "m", "m.0", "m.1", "n", "n.0", "n.1", "z"]


def test_a_paused_run_says_how_many_bodies_still_drain(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    worker.claim("a")
    worker.claim("b")
    controller.pause_workflow(run_id, transitioned_by="ana", mode="drain")
    rows.set_step(run_id, "b", drain_until=seconds_after(-1))
    pause = _status(controller, run_id)["pause"]
    assert (pause["mode"], pause["by"], pause["draining"]) == ("drain", "ana", 1)


def test_status_takes_the_same_few_statements_however_large_the_run_and_no_results(
    controller: WorkflowController, worker: WorkerDouble, unchecked_database: Database
) -> None:
    counts = []
    for size in (2, 200):
        run_id = controller.enqueue_workflow(steps(*(f"s{n}" for n in range(size))), task_description="x")
        worker.run("s0", "large")
        worker.queue.clear()
        with unchecked_database.reading() as connection, counted(unchecked_database.engine) as sent:
            assert run_status(connection, run_id, "default")
        counts.append(len(sent))
        assert not any("workflow_steps.result" in statement for statement in sent)
    assert counts[0] == counts[1] <= 6  # one of them is SQLite's BEGIN


@pytest.mark.long
def test_the_status_of_ten_thousand_steps_takes_time_in_proportion(
    session: Session, database: Database, settings: Settings
) -> None:
    controller = WorkflowController(session, settings=settings)

    def told(size: int) -> Callable[[], object]:
        half = size // 2
        plan = [step(f"s{n}", f"s{n - half}" if n >= half else "") for n in range(size)]
        run_id = controller.enqueue_workflow(plan, task_description="x")
        controller.cancel_workflow(run_id)

        def tell() -> None:
            with database.reading() as connection:
                status = run_status(connection, run_id, "default")
            assert status is not None
            assert len(status["steps"]) == size

        return tell

    assert grows_linearly(told, 10_000)
