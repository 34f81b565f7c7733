"""When a run ends, and when it waits for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import TransitionNotAllowed
from interlock.core.errors import AlreadyDecided, CommandRefused
from tests.core.asking import asked, enqueue, gate, make_overdue
from tests.core.rows import step

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


def _enqueue(controller: WorkflowController, *plan: dict[str, object], document: object = None) -> str:
    return controller.enqueue_workflow(list(plan), task_description="x", input=document)


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


@pytest.mark.parametrize("end", ["cancel", "fail"])
def test_what_is_open_is_closed_when_the_run_ends(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
    unchecked_database: Database,
    end: str,
) -> None:
    run_id = enqueue(controller, gate(deadline_s=60), step("b"))
    if end == "cancel":
        controller.cancel_workflow(run_id, transitioned_by="ann")
    else:
        worker.run_failing("b")
    (request,) = asked(unchecked_database, run_id)
    assert (request.decision, request.decided_by) == ("closed", "ann" if end == "cancel" else "engine")
    assert rows.states(run_id)["g"] == "cancelled"
    with pytest.raises(CommandRefused, match="was closed: the workflow is") as refused:
        controller.approve_step(run_id, "g")
    assert not isinstance(refused.value, AlreadyDecided)
    make_overdue(unchecked_database, run_id)
    assert not sweeper.sweep()


def test_the_run_waits_exactly_when_nothing_else_can_move(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, gate(), step("b"), step("c", "b"))
    assert rows.run(run_id).status == "executing"
    worker.run("b")
    assert rows.run(run_id).status == "executing"
    worker.run("c")
    assert rows.run(run_id).status == "waiting_approval"
    controller.approve_step(run_id, "g")
    assert rows.run(run_id).status == "completed"


def test_a_retry_that_is_coming_can_move(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    policy = {"max_attempts": 2, "initial_delay_s": 200.0}
    run_id = enqueue(controller, gate(), step("b", retry=policy, on_failure="continue"))
    worker.run_failing("b")
    assert rows.run(run_id).status == "executing"
    rows.make_due(run_id, "b", "retry_at")
    sweeper.sweep()
    worker.run_failing("b")
    assert rows.run(run_id).status == "waiting_approval"


def test_a_step_that_a_person_paused_can_move(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, gate(), step("b"))
    worker.claim("b")
    controller.pause_step(run_id, "b")
    assert rows.run(run_id).status == "executing"
    worker.complete("b")
    controller.resume_step(run_id, "b")
    assert rows.run(run_id).status == "waiting_approval"


def test_a_run_that_waits_cannot_be_paused_and_says_for_whom_it_waits(
    controller: WorkflowController,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, gate("ship"))
    with pytest.raises(TransitionNotAllowed, match="it waits for the approval of ship"):
        controller.pause_workflow(run_id)
    assert not controller.can_pause(run_id)
    assert rows.run(run_id).status == "waiting_approval"
