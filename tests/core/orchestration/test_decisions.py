"""Decisions on requests for approval: who may make one, what is stored, and when it takes effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from interlock.core import GuardRefused, StateMachine, TransitionVetoed
from interlock.core.database.tables import ApprovalRequest
from interlock.core.database.types import seconds_after
from interlock.core.errors import AlreadyDecided, CommandRefused, ConfigurationError
from interlock.core.machine.guards import guard
from tests.core.asking import asked, enqueue, gate
from tests.core.rows import step

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database, WorkflowController
    from interlock.core.machine.guards import GuardContext
    from interlock.core.settings import Settings
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


@guard("tests.only_while_it_rains")
def _only_while_it_rains(context: GuardContext) -> bool:
    return context.actor == "rain" and context.from_state == "waiting_approval" and context.entity["key"] == "g"


def test_a_decision_and_its_comment_are_stored_with_who_made_it(
    controller: WorkflowController,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    run_id = enqueue(controller, gate())
    controller.approve_step(run_id, "g", "as agreed on Monday", transitioned_by="ann")
    (request,) = asked(unchecked_database, run_id)
    assert (request.decision, request.decided_by, request.comment, request.applied) == (
        "approved",
        "ann",
        "as agreed on Monday",
        True,
    )
    assert request.decided_at >= request.requested_at
    moved = next(row for row in rows.history(run_id) if row.to_state == "executing" and row.from_state != "planning")
    assert (moved.transitioned_by, moved.transition_reason) == ("ann", "approved by ann: as agreed on Monday")
    assert moved.meta == {"request_id": request.id}


@pytest.mark.parametrize("verb", ["approve_step", "reject_step"])
def test_only_those_on_the_list_may_decide(controller: WorkflowController, rows: Rows, verb: str) -> None:
    run_id = enqueue(controller, gate(approvers=["ann", "bob"]))
    before = rows.history(run_id)
    with pytest.raises(CommandRefused, match="it is for ann, bob") as refused:
        getattr(controller, verb)(run_id, "g", transitioned_by="eve")
    assert refused.value.code == "not_approver"
    assert rows.history(run_id) == before
    getattr(controller, verb)(run_id, "g", transitioned_by="bob")


def test_a_guard_says_who_may_decide(controller: WorkflowController, rows: Rows) -> None:
    run_id = enqueue(controller, gate(guard="tests.only_while_it_rains"))
    with pytest.raises(CommandRefused, match="only_while_it_rains"):
        controller.approve_step(run_id, "g", transitioned_by="sun")
    controller.approve_step(run_id, "g", transitioned_by="rain")
    assert rows.run(run_id).status == "completed"


def test_a_guard_that_nobody_registered_decides_nothing(controller: WorkflowController, rows: Rows) -> None:
    run_id = enqueue(controller, gate(guard="tests.nobody"))
    with pytest.raises(ConfigurationError, match=r"tests\.nobody"):
        controller.approve_step(run_id, "g")
    assert rows.run(run_id).status == "waiting_approval"


def test_a_listener_can_veto_a_decision_which_is_then_not_made(
    controller: WorkflowController,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    run_id = enqueue(controller, gate())

    def veto(change: dict[str, Any]) -> None:
        raise TransitionVetoed(str(change["to_state"]))

    unchecked_database.emitter.on("state_changing", veto)
    with pytest.raises(TransitionVetoed):
        controller.approve_step(run_id, "g")
    assert rows.run(run_id).status == "waiting_approval"
    unchecked_database.emitter.off("state_changing", veto)
    controller.approve_step(run_id, "g")
    assert rows.run(run_id).status == "completed"


@pytest.mark.parametrize("first", ["approve_step", "reject_step"])
@pytest.mark.parametrize("second", ["approve_step", "reject_step"])
def test_the_second_decision_is_told_who_made_the_first(
    controller: WorkflowController,
    rows: Rows,
    first: str,
    second: str,
) -> None:
    run_id = enqueue(controller, gate(on_reject="continue"), step("z", "g"))
    getattr(controller, first)(run_id, "g", transitioned_by="ann")
    before = rows.history(run_id)
    with pytest.raises(AlreadyDecided) as refused:
        getattr(controller, second)(run_id, "g", transitioned_by="bob")
    decision = "approved" if first == "approve_step" else "rejected"
    assert (refused.value.decision, refused.value.decided_by) == (decision, "ann")
    assert rows.history(run_id) == before


def test_no_other_session_can_decide(controller: WorkflowController, session: Session, settings: Settings) -> None:
    run_id = enqueue(controller, gate())
    other = type(controller)(session, "other", settings=settings)
    with pytest.raises(ValueError, match="no workflow run"):
        other.approve_step(run_id, "g")


def test_a_rejection_cancels_the_run(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = enqueue(controller, gate(), step("b"), step("z", "g"))
    worker.claim("b")
    controller.reject_step(run_id, "g", "too dear", transitioned_by="ann")
    assert rows.states(run_id) == {"g": "cancelled", "b": "cancelled", "z": "cancelled"}
    last = rows.history(run_id)[-1]
    assert (last.to_state, last.transitioned_by, last.transition_reason) == (
        "cancelled",
        "ann",
        "rejected by ann: too dear",
    )
    assert [interrupt.mode for interrupt in worker.interrupts] == ["soft"]


@pytest.mark.parametrize("task", [None, "tasks.g"])
def test_a_rejection_may_be_a_result_like_another(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    task: str | None,
) -> None:
    """The task is not run, and later steps see the decision."""
    run_id = enqueue(
        controller,
        {**gate(on_reject="continue"), "task": task},
        step("yes", "g", when="results.g.approved"),
        step("no", "g", when="results.g.decision == 'rejected'"),
    )
    controller.reject_step(run_id, "g", "not now", transitioned_by="ann")
    assert rows.step(run_id, "g").result == {
        "decision": "rejected",
        "approved": False,
        "by": "ann",
        "comment": "not now",
    }
    assert (rows.states(run_id)["yes"], worker.queued) == ("skipped", ["no"])
    worker.run_all()
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
