"""Questions to people: who is asked, who may decide, what a decision does, and when a run waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from interlock.core import GuardRefused, StateMachine, TransitionNotAllowed, TransitionVetoed
from interlock.core.attempts import Report
from interlock.core.bodies import Bodies
from interlock.core.columns import seconds_after
from interlock.core.errors import AlreadyDecided, CommandRefused, ConfigurationError, EntityNotFound
from interlock.core.guards import guard
from interlock.core.models import ApprovalRequest

from .rows import step, steps

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from interlock.core import Database, WorkflowController
    from interlock.core.guards import GuardContext
    from interlock.core.settings import Settings
    from interlock.core.sweep import Sweeper

    from .rows import Rows
    from .worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")

_requests = ApprovalRequest.__table__


@guard("tests.only_while_it_rains")
def _only_while_it_rains(context: GuardContext) -> bool:
    return context.actor == "rain" and context.from_state == "waiting_approval" and context.entity["key"] == "g"


def _gate(key: str = "g", after: str = "", **approval: object) -> dict[str, Any]:
    return {"key": key, "after": after.split(), "approval": approval or True}


def _enqueue(controller: WorkflowController, *plan: dict[str, Any], **head: object) -> str:
    return controller.enqueue_workflow({"steps": list(plan), "task_description": "x", **head})


def _asked(database: Database, run_id: str) -> list[Row[Any]]:
    """The run's requests, oldest first."""
    query = select(_requests).where(_requests.c.run_id == run_id).order_by(_requests.c.requested_at)
    with database.reading() as connection:
        return list(connection.execute(query))


def _make_overdue(database: Database, run_id: str) -> None:
    query = update(_requests).where(_requests.c.run_id == run_id).values(deadline_at=seconds_after(-1))
    database.transact(lambda connection, _: connection.execute(query))


# gates, and tasks that are decided about first


def test_a_gate_waits_for_a_person_and_its_decision_is_its_result(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("a"), _gate(after="a"), step("z", "g"))
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
    run_id = _enqueue(controller, step("g", approval=True))
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
    run_id = _enqueue(controller, step("g", approval=True, retry=policy, on_failure="continue"), step("o"))
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
    run_id = _enqueue(controller, _gate())
    controller.approve_step(run_id, "g", "as agreed on Monday", transitioned_by="ann")
    (request,) = _asked(unchecked_database, run_id)
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
    run_id = _enqueue(controller, _gate(approvers=["ann", "bob"]))
    before = rows.history(run_id)
    with pytest.raises(CommandRefused, match="it is for ann, bob") as refused:
        getattr(controller, verb)(run_id, "g", transitioned_by="eve")
    assert refused.value.code == "not_approver"
    assert rows.history(run_id) == before
    getattr(controller, verb)(run_id, "g", transitioned_by="bob")


def test_a_guard_says_who_may_decide(controller: WorkflowController, rows: Rows) -> None:
    run_id = _enqueue(controller, _gate(guard="tests.only_while_it_rains"))
    with pytest.raises(CommandRefused, match="only_while_it_rains"):
        controller.approve_step(run_id, "g", transitioned_by="sun")
    controller.approve_step(run_id, "g", transitioned_by="rain")
    assert rows.run(run_id).status == "completed"


def test_a_guard_that_nobody_registered_decides_nothing(controller: WorkflowController, rows: Rows) -> None:
    run_id = _enqueue(controller, _gate(guard="tests.nobody"))
    with pytest.raises(ConfigurationError, match=r"tests\.nobody"):
        controller.approve_step(run_id, "g")
    assert rows.run(run_id).status == "waiting_approval"


def test_a_listener_can_veto_a_decision_which_is_then_not_made(
    controller: WorkflowController,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    run_id = _enqueue(controller, _gate())

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
    run_id = _enqueue(controller, _gate(on_reject="continue"), step("z", "g"))
    getattr(controller, first)(run_id, "g", transitioned_by="ann")
    before = rows.history(run_id)
    with pytest.raises(AlreadyDecided) as refused:
        getattr(controller, second)(run_id, "g", transitioned_by="bob")
    decision = "approved" if first == "approve_step" else "rejected"
    assert (refused.value.decision, refused.value.decided_by) == (decision, "ann")
    assert rows.history(run_id) == before


def test_what_asks_for_nothing_cannot_be_decided(controller: WorkflowController) -> None:
    run_id = _enqueue(controller, step("a"), _gate(after="a"))
    for key in ("a", "g"):
        with pytest.raises(CommandRefused, match="asks for no approval"):
            controller.approve_step(run_id, key)
    with pytest.raises(EntityNotFound, match="nothing"):
        controller.approve_step(run_id, "nothing")


def test_no_other_session_can_decide(controller: WorkflowController, session: Session, settings: Settings) -> None:
    run_id = _enqueue(controller, _gate())
    other = type(controller)(session, "other", settings=settings)
    with pytest.raises(ValueError, match="no workflow run"):
        other.approve_step(run_id, "g")


# rejection


def test_a_rejection_cancels_the_run(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = _enqueue(controller, _gate(), step("b"), step("z", "g"))
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
    gate = {**_gate(on_reject="continue"), "task": task}
    run_id = _enqueue(
        controller,
        gate,
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


@pytest.mark.parametrize(
    ("approval", "status", "state"),
    [
        ({"default": "approve"}, "completed", "completed"),
        ({"default": "reject"}, "cancelled", "cancelled"),
        ({}, "cancelled", "cancelled"),
        ({"default": "reject", "on_reject": "continue"}, "completed", "completed"),
    ],
    ids=["approve", "reject", "unsaid", "reject-continue"],
)
def test_a_deadline_decides_by_its_default(
    controller: WorkflowController,
    sweeper: Sweeper,
    rows: Rows,
    unchecked_database: Database,
    approval: dict[str, Any],
    status: str,
    state: str,
) -> None:
    run_id = _enqueue(controller, _gate(deadline_s=60, approvers=["ann"], **approval))
    (request,) = _asked(unchecked_database, run_id)
    assert (request.deadline_at - request.requested_at).total_seconds() == pytest.approx(60, abs=1)
    assert sweeper.sweep().decided == 0
    _make_overdue(unchecked_database, run_id)
    assert (sweeper.sweep().decided, sweeper.sweep().decided) == (1, 0)
    assert (rows.run(run_id).status, rows.states(run_id)) == (status, {"g": state})
    with pytest.raises(AlreadyDecided) as refused:
        controller.approve_step(run_id, "g", transitioned_by="ann")
    assert refused.value.decided_by == "engine"


def test_a_deadline_is_frozen_while_the_run_is_paused(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    run_id = _enqueue(controller, _gate(deadline_s=60), step("b"))
    controller.pause_workflow(run_id)
    rows.set_run(run_id, paused_at=seconds_after(-3600))
    (before,) = _asked(unchecked_database, run_id)
    _make_overdue(unchecked_database, run_id)
    assert sweeper.sweep().decided == 0
    worker.queue.clear()
    controller.resume_workflow(run_id)
    (after,) = _asked(unchecked_database, run_id)
    assert (after.deadline_at - before.deadline_at).total_seconds() == pytest.approx(3600 - 61, abs=5)
    assert sweeper.sweep().decided == 0
    controller.approve_step(run_id, "g")
    worker.run_all()


def test_a_request_that_cannot_be_decided_keeps_no_other_from_its_deadline(
    controller: WorkflowController,
    sweeper: Sweeper,
    rows: Rows,
    unchecked_database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [_enqueue(controller, _gate(deadline_s=60, default="approve")) for _ in range(2)]
    for run_id in runs:
        _make_overdue(unchecked_database, run_id)
    decide_one = sweeper._decide_one

    def refuse_the_first(run_id: str, request_id: str) -> bool:
        if run_id == runs[0]:
            raise CommandRefused("approve", "no")
        return decide_one(run_id, request_id)

    monkeypatch.setattr(sweeper, "_decide_one", refuse_the_first)
    assert sweeper.sweep().decided == 1
    assert [rows.run(run_id).status for run_id in runs] == ["waiting_approval", "completed"]


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
    run_id = _enqueue(controller, _gate(deadline_s=60), step("b"))
    if end == "cancel":
        controller.cancel_workflow(run_id, transitioned_by="ann")
    else:
        worker.run_failing("b")
    (request,) = _asked(unchecked_database, run_id)
    assert (request.decision, request.decided_by) == ("closed", "ann" if end == "cancel" else "engine")
    assert rows.states(run_id)["g"] == "cancelled"
    with pytest.raises(CommandRefused, match="was closed: the workflow is") as refused:
        controller.approve_step(run_id, "g")
    assert not isinstance(refused.value, AlreadyDecided)
    _make_overdue(unchecked_database, run_id)
    assert not sweeper.sweep()


# when the run waits


def test_the_run_waits_exactly_when_nothing_else_can_move(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, _gate(), step("b"), step("c", "b"))
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
    run_id = _enqueue(controller, _gate(), step("b", retry=policy, on_failure="continue"))
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
    run_id = _enqueue(controller, _gate(), step("b"))
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
    run_id = _enqueue(controller, _gate("g1"), _gate("g2"), _gate("g3"))
    for left, key in ((2, "g2"), (1, "g1"), (0, "g3")):
        controller.approve_step(run_id, key)
        assert rows.run(run_id).waiting_steps == left
        assert rows.run(run_id).status == ("waiting_approval" if left else "completed")
    assert rows.path(run_id)[2:] == ["executing", *["waiting_approval", "executing"] * 3, "completed"]


def test_a_gate_behind_a_gate_is_asked_when_the_first_is_decided(controller: WorkflowController, rows: Rows) -> None:
    run_id = _enqueue(controller, _gate("g1"), _gate("g2", "g1"))
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
) -> None:
    """Nor where both happen in one tick of the clock: the guard asks for a decision that has not taken effect."""
    machine = StateMachine(session, "workflow_run")
    run_id = _enqueue(controller, *[_gate(f"g{n}") for n in range(6)])
    for n in range(5):
        with pytest.raises(GuardRefused, match="has_approval"):
            machine.transition_to(run_id, "executing")
        assert machine.get_allowed_transitions(run_id) == ["cancelled"]
        controller.approve_step(run_id, f"g{n}")
    assert rows.run(run_id).status == "waiting_approval"


def test_a_run_that_waits_cannot_be_paused_and_says_for_whom_it_waits(
    controller: WorkflowController,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, _gate("ship"))
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
    run_id = _enqueue(controller, _gate(), step("b"), step("z", "g"))
    controller.pause_workflow(run_id)
    before = rows.history(run_id)
    getattr(controller, f"{verb}_step")(run_id, "g", "why not", transitioned_by="ann")
    assert rows.history(run_id) == before
    with pytest.raises(AlreadyDecided):
        controller.approve_step(run_id, "g")
    worker.queue.clear()
    controller.resume_workflow(run_id, transitioned_by="bob")
    (request,) = _asked(unchecked_database, run_id)
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
    run_id = _enqueue(controller, _gate("g1"), _gate("g2"), _gate("g3"), step("b"))
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
    run_id = _enqueue(controller, _gate(), step("b"))
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
    run_id = _enqueue(controller, *steps("a"))
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
    run_id = _enqueue(controller, *steps("a"))
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
