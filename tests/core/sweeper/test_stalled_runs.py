"""Runs in which nothing moves, because somebody has moved rows by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import StateMachine
from interlock.core.sweeper.sweeper import SweepResult
from tests.core.rows import step

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import WorkflowController
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble


@pytest.fixture
def planned_by_hand(session: Session, controller: WorkflowController) -> str:
    """A run moved to executing by the bare state machine, which starts nothing."""
    run = controller.create_workflow("x", plan=[step("a"), step("b", "a"), step("c", when="input")])
    machine = StateMachine(session, "workflow_run")
    machine.transition_to(run.id, "planning")
    machine.transition_to(run.id, "executing")
    return run.id


def test_what_a_run_that_was_moved_to_executing_by_hand_waits_for_is_started(
    planned_by_hand: str,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    assert worker.queue == []
    assert sweeper.sweep() == SweepResult(revived=1)
    assert rows.states(planned_by_hand) == {"a": "pending", "b": "pending", "c": "skipped"}
    assert not sweeper.sweep()
    worker.run_all()
    assert rows.run(planned_by_hand).status == "completed"


def test_a_run_goes_on_from_steps_that_were_settled_by_hand(
    controller: WorkflowController,
    session: Session,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """The bare machine moves one entity and counts nothing; the counters are found again."""
    plan = [step("a"), step("b", "a"), step("c", "a b"), step("d", "c")]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    machine = StateMachine(session, "workflow_step")
    worker.claim("a")
    machine.transition_to(rows.step(run_id, "a").id, "completed")
    assert sweeper.sweep() == SweepResult(revived=1)
    assert worker.queued == ["b"]
    machine.transition_to(rows.step(run_id, "d").id, "cancelled")
    worker.run("b")
    worker.run("c")
    assert rows.run(run_id).status == "executing"
    assert sweeper.sweep() == SweepResult(revived=1)
    assert (rows.run(run_id).status, rows.run(run_id).open_steps) == ("completed", 0)
