"""When a run waits for people, decisions made while it is paused, and bodies that ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import update

from interlock.core import GuardRefused, StateMachine, TransitionNotAllowed
from interlock.core.attempts.attempts import Report
from interlock.core.attempts.step_calls import Bodies
from interlock.core.database.tables import ApprovalRequest
from interlock.core.database.types import seconds_after
from interlock.core.errors import AlreadyDecided
from tests.core.asking import asked, enqueue, gate
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database, WorkflowController
    from interlock.core.settings import Settings
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


# when the run waits


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


def test_several_gates_are_open_at_once_and_each_is_decided_by_itself(
    controller: WorkflowController,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, gate("g1"), gate("g2"), gate("g3"))
    for left, key in ((2, "g2"), (1, "g1"), (0, "g3")):
        controller.approve_step(run_id, key)
        assert rows.run(run_id).waiting_steps == left
        assert rows.run(run_id).status == ("waiting_approval" if left else "completed")
    assert rows.path(run_id)[2:] == ["executing", *["waiting_approval", "executing"] * 3, "completed"]


def test_a_gate_behind_a_gate_is_asked_when_the_first_is_decided(controller: WorkflowController, rows: Rows) -> None:
    run_id = enqueue(controller, gate("g1"), gate("g2", "g1"))
    assert rows.states(run_id) == {"g1": "waiting_approval", "g2": "pending"}
    controller.approve_step(run_id, "g1")
    assert rows.states(run_id) == {"g1": "completed", "g2": "waiting_approval"}
    assert rows.run(run_id).status == "waiting_approval"
    controller.approve_step(run_id, "g2")
    assert rows.run(run_id).status == "completed"


def test_the_decision_of_an_earlier_wait_does_not_end_this_one(
    controller: WorkflowController,
    session: Session,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    """Nor where both happen in one tick of the clock: the guard asks for a decision that has not taken effect."""
    requests = ApprovalRequest.__table__
    machine = StateMachine(session, "workflow_run")
    run_id = enqueue(controller, *[gate(f"g{n}") for n in range(6)])
    for n in range(5):
        with pytest.raises(GuardRefused, match="has_approval"):
            machine.transition_to(run_id, "executing")
        assert machine.get_allowed_transitions(run_id) == ["cancelled"]
        controller.approve_step(run_id, f"g{n}")
        later = update(requests).where(requests.c.applied.is_(True)).values(decided_at=seconds_after(1))
        unchecked_database.transact(lambda connection, _, later=later: connection.execute(later))
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


# decided while paused


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_a_decision_made_while_paused_takes_effect_at_resume(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
    verb: str,
) -> None:
    run_id = enqueue(controller, gate(), step("b"), step("z", "g"))
    controller.pause_workflow(run_id)
    before = rows.history(run_id)
    getattr(controller, f"{verb}_step")(run_id, "g", "why not", transitioned_by="ann")
    assert rows.history(run_id) == before
    with pytest.raises(AlreadyDecided):
        controller.approve_step(run_id, "g")
    worker.queue.clear()
    controller.resume_workflow(run_id, transitioned_by="bob")
    (request,) = asked(unchecked_database, run_id)
    assert request.applied
    if verb == "approve":
        assert (rows.step(run_id, "g").result or {})["by"] == "ann"
        worker.run_all()
        assert rows.run(run_id).status == "completed"
    else:
        last = rows.history(run_id)[-1]
        assert (last.to_state, last.transitioned_by, last.transition_reason) == (
            "cancelled",
            "ann",
            "rejected by ann: why not",
        )


def test_all_decisions_made_while_paused_take_effect_at_one_resume(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """Also where the first leaves nothing that could move: the others would be lost, because nobody can decide again."""
    run_id = enqueue(controller, gate("g1"), gate("g2"), gate("g3"), step("b"))
    worker.claim("b")
    controller.pause_workflow(run_id)
    worker.complete("b")
    controller.approve_step(run_id, "g3")
    controller.approve_step(run_id, "g1")
    controller.resume_workflow(run_id)
    assert rows.states(run_id) == {
        "g1": "completed",
        "g2": "waiting_approval",
        "g3": "completed",
        "b": "completed",
    }
    assert rows.run(run_id).status == "waiting_approval"
    controller.approve_step(run_id, "g2")
    assert rows.run(run_id).status == "completed"


def test_a_run_that_ends_at_resume_has_its_stored_decisions_forgotten(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """A failure came first; what the person had decided does not matter any more."""
    run_id = enqueue(controller, gate(), step("b"))
    worker.claim("b")
    controller.pause_workflow(run_id)
    worker.fail("b")
    controller.approve_step(run_id, "g")
    controller.resume_workflow(run_id)
    assert rows.run(run_id).status == "failed"
    assert rows.states(run_id) == {"g": "cancelled", "b": "failed"}


# a body that asks


def test_a_body_that_asks_is_run_again_with_the_decision(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
    settings: Settings,
) -> None:
    bodies = Bodies(unchecked_database, settings)
    run_id = enqueue(controller, *steps("a"))
    first = worker.claim("a")
    assert bodies.ask(first, {"name": "ship", "approvers": ["ann"]})
    assert (rows.run(run_id).status, rows.states(run_id)) == ("waiting_approval", {"a": "waiting_approval"})
    assert worker.complete("a") is Report.STALE
    controller.approve_step(run_id, "a", "go", transitioned_by="ann")
    second = worker.claim("a")
    assert second.task_id != first.task_id
    assert bodies.decision(second, "ship") == {"decision": "approved", "approved": True, "by": "ann", "comment": "go"}
    worker.complete("a", 1)
    assert rows.run(run_id).status == "completed"


def test_a_body_whose_question_was_rejected_is_run_again_where_the_plan_goes_on(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
    settings: Settings,
) -> None:
    bodies = Bodies(unchecked_database, settings)
    run_id = enqueue(controller, *steps("a"))
    bodies.ask(worker.claim("a"), {"name": "ship", "on_reject": "continue"})
    controller.reject_step(run_id, "a", transitioned_by="ann")
    second = worker.claim("a")
    decision = bodies.decision(second, "ship")
    assert decision is not None
    assert decision["approved"] is False
    bodies.ask(second, {"name": "again"})
    controller.approve_step(run_id, "a", transitioned_by="bob")
    worker.run("a", 1)
    assert rows.run(run_id).status == "completed"
