"""Questions to people: who is asked, who may decide, what a decision does, and when a run waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import TransitionVetoed
from interlock.core.errors import AlreadyDecided, CommandRefused, ConfigurationError, EntityNotFound
from interlock.core.machine.guards import guard
from tests.core.asking import asked, enqueue, gate, make_overdue
from tests.core.rows import step

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database, WorkflowController
    from interlock.core.machine.guards import GuardContext
    from interlock.core.settings import Settings
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


@guard("tests.only_while_it_rains")
def _only_while_it_rains(context: GuardContext) -> bool:
    return context.actor == "rain" and context.from_state == "waiting_approval" and context.entity["key"] == "g"


# gates, and tasks that are decided about first


def test_a_gate_waits_for_a_person_and_its_decision_is_its_result(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, step("a"), gate(after="a"), step("z", "g"))
    worker.run("a")
    assert rows.states(run_id) == {"a": "completed", "g": "waiting_approval", "z": "pending"}
    assert rows.run(run_id).status == "waiting_approval"
    assert worker.queued == []
    controller.approve_step(run_id, "g", "looks fine", transitioned_by="ann")
    assert rows.step(run_id, "g").result == {
        "decision": "approved",
        "approved": True,
        "by": "ann",
        "comment": "looks fine",
    }
    assert rows.path(run_id, "g") == ["pending", "running", "waiting_approval", "running", "completed"]
    assert rows.step(run_id, "g").attempt == 0  # no worker has seen it
    worker.run_all()
    assert rows.path(run_id) == ["draft", "planning", "executing", "waiting_approval", "executing", "completed"]


def test_a_task_with_an_approval_is_sent_once_it_is_approved(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, step("g", approval=True))
    assert (worker.queued, rows.states(run_id)) == ([], {"g": "waiting_approval"})
    controller.approve_step(run_id, "g")
    assert (worker.queued, rows.states(run_id)) == (["g"], {"g": "running"})
    worker.run("g", 42)
    assert (rows.step(run_id, "g").result, rows.run(run_id).status) == (42, "completed")


def test_a_task_that_was_approved_is_not_asked_about_again_when_it_is_retried(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    policy = {"max_attempts": 2, "initial_delay_s": 0.0, "jitter": 0.0}
    run_id = enqueue(controller, step("g", approval=True, retry=policy, on_failure="continue"), step("o"))
    controller.approve_step(run_id, "g")
    for _ in range(2):
        worker.run_failing("g")
    controller.retry_step(run_id, "g")
    worker.run_all()
    assert rows.path(run_id, "g").count("waiting_approval") == 1
    assert rows.run(run_id).status == "completed"


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


# who may decide


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


# decided once


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


def test_what_asks_for_nothing_cannot_be_decided(controller: WorkflowController) -> None:
    run_id = enqueue(controller, step("a"), gate(after="a"))
    for key in ("a", "g"):
        with pytest.raises(CommandRefused, match="asks for no approval"):
            controller.approve_step(run_id, key)
    with pytest.raises(EntityNotFound, match="nothing"):
        controller.approve_step(run_id, "nothing")


def test_no_other_session_can_decide(controller: WorkflowController, session: Session, settings: Settings) -> None:
    run_id = enqueue(controller, gate())
    other = type(controller)(session, "other", settings=settings)
    with pytest.raises(ValueError, match="no workflow run"):
        other.approve_step(run_id, "g")


# rejection


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


# deadlines


# the end of the run closes what is open


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
