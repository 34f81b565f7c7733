"""What SPEC section 2 says of `StateMachine`, on both kinds of database; the matrix and transactions are elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import insert, select, update

from interlock.core import (
    EntityNotFound,
    EventEmitter,
    GuardRefused,
    StateMachine,
    TransitionConflict,
    TransitionVetoed,
    UnknownState,
    WorkflowController,
    WorkflowRun,
    WorkflowStep,
)
from interlock.core.database.tables import ApprovalRequest, StepDependency, new_id
from interlock.core.database.types import seconds_after
from tests.core.rows import counted, step, steps

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def machine(session: Session) -> StateMachine:
    """A machine of runs."""
    return StateMachine(session, "workflow_run")


@pytest.fixture
def step_machine(session: Session) -> StateMachine:
    """A machine of steps."""
    return StateMachine(session, "workflow_step")


def test_another_entity_type_is_a_value_error(session: Session) -> None:
    with pytest.raises(ValueError, match="'workflow_run' or 'workflow_step', not 'workflow'"):
        StateMachine(session, "workflow")


def test_an_unknown_state_is_refused_and_the_known_ones_are_listed(
    controller: WorkflowController,
    machine: StateMachine,
) -> None:
    run = controller.create_workflow("x")
    with pytest.raises(UnknownState) as caught:
        machine.transition_to(run.id, "sleeping")
    assert caught.value.to_state == "sleeping"
    assert "waiting_approval" in caught.value.known
    assert "skipped" not in caught.value.known
    assert not machine.can_transition_to(run.id, "sleeping")


@pytest.mark.parametrize("entity_id", [NOBODY, "no-uuid-at-all", ""])
@pytest.mark.parametrize("kind", ["workflow_run", "workflow_step"])
def test_a_missing_entity_is_not_found(session: Session, kind: str, entity_id: str) -> None:
    """What is no UUID is an id that nobody has, on PostgreSQL as well."""
    machine = StateMachine(session, kind)
    with pytest.raises(EntityNotFound) as caught:
        machine.transition_to(entity_id, "running" if kind == "workflow_step" else "planning")
    assert caught.value.entity == (kind, entity_id)
    with pytest.raises(EntityNotFound):
        machine.get_current_state(entity_id)
    assert machine.can_transition_to(entity_id, "cancelled") is False
    assert machine.get_allowed_transitions(entity_id) == []
    assert machine.get_state_history(entity_id) == []


def test_an_entity_of_another_session_is_not_found(session: Session, worker: WorkerDouble, rows: Rows) -> None:
    run_id = WorkflowController(session, "theirs").enqueue_workflow(steps("a"), task_description="x")
    before = rows.count()
    for kind, entity_id, target in (
        ("workflow_run", run_id, "cancelled"),
        ("workflow_step", worker.queue[0].step_id, "running"),
    ):
        mine = StateMachine(session, kind, session_id="mine")
        with pytest.raises(EntityNotFound):
            mine.transition_to(entity_id, target)
        with pytest.raises(EntityNotFound):
            mine.get_current_state(entity_id)
        assert mine.can_transition_to(entity_id, target) is False
        assert mine.get_allowed_transitions(entity_id) == []
        assert mine.get_state_history(entity_id) == []
        theirs = StateMachine(session, kind, session_id="theirs")
        assert theirs.can_transition_to(entity_id, target)
    assert rows.count() == before


def test_an_id_may_be_a_uuid_object(controller: WorkflowController, machine: StateMachine) -> None:
    run = controller.create_workflow("x")
    assert machine.transition_to(UUID(run.id), "planning")  # type: ignore[arg-type]
    assert machine.get_current_state(UUID(run.id)) == "planning"  # type: ignore[arg-type]


# guards


@pytest.mark.parametrize("description", [None, "", " \t\n"])
def test_planning_needs_a_task_description(
    controller: WorkflowController,
    machine: StateMachine,
    rows: Rows,
    description: str | None,
) -> None:
    run = controller.create_workflow(description)
    with pytest.raises(GuardRefused) as caught:
        machine.transition_to(run.id, "planning")
    error = caught.value
    assert (error.guard, error.from_state, error.to_state) == ("has_task_description", "draft", "planning")
    assert error.allowed == ("planning", "cancelled")
    assert not machine.can_transition_to(run.id, "planning")
    assert machine.get_allowed_transitions(run.id) == ["cancelled"]
    assert rows.path(run.id) == ["draft"]


def test_planning_is_entered_with_a_task_description(controller: WorkflowController, machine: StateMachine) -> None:
    run = controller.create_workflow("count the words")
    assert machine.get_allowed_transitions(run.id) == ["planning", "cancelled"]
    assert machine.transition_to(run.id, "planning") is True
    assert machine.get_current_state(run.id) == "planning"


def _planning(controller: WorkflowController, machine: StateMachine, plan: Any = None) -> str:
    run = controller.create_workflow("x", plan=plan)
    machine.transition_to(run.id, "planning")
    return run.id


def test_executing_needs_at_least_one_step(controller: WorkflowController, machine: StateMachine) -> None:
    run_id = _planning(controller, machine)
    assert machine.get_allowed_transitions(run_id) == ["failed", "cancelled"]
    with pytest.raises(GuardRefused, match="has_valid_plan"):
        machine.transition_to(run_id, "executing")


def _add_edge(database: Database, run_id: str, upstream_id: str, step_id: str) -> None:
    values = {"run_id": run_id, "upstream_id": upstream_id, "step_id": step_id}
    database.transact(lambda connection, _: connection.execute(insert(StepDependency.__table__), values))


def test_executing_refuses_a_cycle_that_got_into_the_database(
    controller: WorkflowController,
    machine: StateMachine,
    unchecked_database: Database,
    rows: Rows,
) -> None:
    run_id = _planning(controller, machine, [step("a"), step("b", "a")])
    _add_edge(unchecked_database, run_id, rows.step(run_id, "b").id, rows.step(run_id, "a").id)
    with pytest.raises(GuardRefused, match="has_valid_plan"):
        machine.transition_to(run_id, "executing")
    assert not machine.can_transition_to(run_id, "executing")


def test_executing_refuses_a_dependency_on_a_step_of_another_run(
    controller: WorkflowController,
    machine: StateMachine,
    unchecked_database: Database,
    rows: Rows,
) -> None:
    run_id, other = (_planning(controller, machine, steps("a")) for _ in range(2))
    _add_edge(unchecked_database, run_id, rows.step(other, "a").id, rows.step(run_id, "a").id)
    with pytest.raises(GuardRefused, match="has_valid_plan"):
        machine.transition_to(run_id, "executing")
    assert machine.can_transition_to(other, "executing")


def test_executing_is_entered_with_a_valid_plan(controller: WorkflowController, machine: StateMachine) -> None:
    run_id = _planning(controller, machine, [step("a"), step("b", "a")])
    assert machine.transition_to(run_id, "executing") is True


def _waiting(controller: WorkflowController, machine: StateMachine) -> str:
    run_id = _planning(controller, machine, steps("a"))
    machine.transition_to(run_id, "executing")
    machine.transition_to(run_id, "waiting_approval")
    return run_id


def _decide(database: Database, run_id: str, decision: str | None, decided_s: float = 1) -> None:
    """Add an approval request, decided so many seconds after (or before) now."""
    values = {
        "id": new_id(),
        "run_id": run_id,
        "session_id": "default",
        "decision": decision,
        "decided_at": None if decision is None else seconds_after(decided_s),
    }
    database.transact(lambda connection, _: connection.execute(insert(ApprovalRequest.__table__).values(**values)))


@pytest.mark.parametrize(
    ("decided", "accepted"),
    [
        (("approved", 1), True),
        (("rejected", 1), True),
        (("approved", -60), False),  # an earlier wait's
        (("closed", 1), False),
        ((None, 0), False),
    ],
)
def test_a_wait_ends_only_by_a_decision_made_since_it_began(
    controller: WorkflowController,
    machine: StateMachine,
    unchecked_database: Database,
    decided: tuple[str | None, float],
    accepted: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    run_id, other = (_waiting(controller, machine) for _ in range(2))
    _decide(unchecked_database, run_id, *decided)
    assert machine.can_transition_to(run_id, "executing") is accepted
    assert not machine.can_transition_to(other, "executing")
    if accepted:
        assert machine.transition_to(run_id, "executing") is True
    else:
        with pytest.raises(GuardRefused, match="has_approval"):
            machine.transition_to(run_id, "executing")


# history


def test_the_history_is_in_order_and_begins_from_nothing(
    controller: WorkflowController,
    machine: StateMachine,
) -> None:
    run = controller.create_workflow("x", transitioned_by="author")
    machine.transition_to(run.id, "planning", reason="go", transitioned_by="me", meta={"n": [1, None]})
    machine.transition_to(run.id, "cancelled")
    history = machine.get_state_history(run.id)
    assert [(row.seq, row.from_state, row.to_state) for row in history] == [
        (1, None, "draft"),
        (2, "draft", "planning"),
        (3, "planning", "cancelled"),
    ]
    assert [row.transitioned_by for row in history] == ["author", "me", "system"]
    assert (history[1].transition_reason, history[1].meta) == ("go", {"n": [1, None]})
    assert all(row.session_id == "default" and row.workflow_id == run.id for row in history)
    assert all(row.created_at.utcoffset().total_seconds() == 0 for row in history)


def test_an_entity_without_history_still_moves(
    unchecked_database: Database,
    machine: StateMachine,
    step_machine: StateMachine,
) -> None:
    """Rows from before there was a history: the first row then has the state they were in."""
    run_id, step_id = new_id(), new_id()
    with unchecked_database.session() as old:
        old.add(WorkflowRun(id=run_id, status="executing"))
        old.flush()
        old.add(WorkflowStep(id=step_id, run_id=run_id, key="a", status="running"))
    assert machine.get_state_history(run_id) == []
    assert machine.get_current_state(run_id) == "executing"
    assert "paused" in machine.get_allowed_transitions(run_id)
    assert machine.transition_to(run_id, "paused")
    assert step_machine.transition_to(step_id, "paused")
    assert [(row.seq, row.from_state) for row in machine.get_state_history(run_id)] == [(1, "executing")]
    assert [(row.seq, row.from_state) for row in step_machine.get_state_history(step_id)] == [(2, "running")]


def test_a_wait_without_history_ends_by_any_decision(unchecked_database: Database, machine: StateMachine) -> None:
    run_id = new_id()
    with unchecked_database.session() as old:
        old.add(WorkflowRun(id=run_id, status="waiting_approval"))
    assert not machine.can_transition_to(run_id, "executing")
    _decide(unchecked_database, run_id, "approved", -3600)
    assert machine.transition_to(run_id, "executing")


def test_a_step_moved_by_hand_leaves_no_timer_behind(
    controller: WorkflowController,
    step_machine: StateMachine,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """A lease that outlives what it was for would fall due for ever."""
    run_id = controller.enqueue_workflow(steps("a", "b", retry={"max_attempts": 2}), task_description="x")
    for key, target in (("a", "completed"), ("b", "paused")):
        worker.claim(key)
        step_machine.transition_to(rows.step(run_id, key).id, target)
        assert rows.step(run_id, key).due_at is None
        assert rows.step(run_id, key).claim_token is None


# the status attribute


@pytest.mark.usefixtures("database")
def test_assigning_the_status_of_a_loaded_object_raises(controller: WorkflowController, session: Session) -> None:
    run = controller.create_workflow("x", plan=steps("a"))
    with pytest.raises(AttributeError, match=r"StateMachine\.transition_to"):
        run.status = "completed"
    loaded = session.scalars(select(WorkflowStep)).one()
    with pytest.raises(AttributeError, match="WorkflowStep"):
        loaded.status = "completed"
    session.rollback()


def test_a_detached_object_cannot_smuggle_a_status_in(unchecked_database: Database) -> None:
    with unchecked_database.session() as session:
        run = WorkflowController(session).create_workflow("x")
    with pytest.raises(AttributeError):
        run.status = "completed"
    with unchecked_database.session() as session:
        assert session.merge(run).status == "draft"  # merging assigns what is there already


def test_loaded_objects_follow_their_moves(controller: WorkflowController, machine: StateMachine) -> None:
    run = controller.create_workflow("x")
    machine.transition_to(run.id, "planning")
    assert run.status == "planning"


def test_loaded_steps_are_brought_up_to_date_by_one_statement(
    controller: WorkflowController,
    session: Session,
    unchecked_database: Database,
) -> None:
    run = controller.create_workflow("x", plan=steps(*(f"s{n}" for n in range(50))))
    loaded = session.scalars(select(WorkflowStep)).all()
    session.commit()
    with counted(unchecked_database.engine) as statements:
        controller.cancel_workflow(run.id)
    assert {step.status for step in loaded} == {"cancelled"}
    assert len(statements) < 15


def test_loaded_steps_of_a_replaced_plan_do_not_stop_the_next_move(
    controller: WorkflowController,
    session: Session,
) -> None:
    run = controller.create_workflow("x", plan=steps("old"))
    old = session.scalars(select(WorkflowStep)).one()
    session.commit()
    controller.set_plan(run.id, steps("new"))
    controller.start_workflow(run.id)
    assert run.status == "executing"
    assert old.key == "old"


# lost races


@pytest.mark.parametrize("kind", ["workflow_run", "workflow_step"])
def test_a_row_moved_by_code_that_takes_no_lock_is_a_conflict(
    controller: WorkflowController,
    session: Session,
    rows: Rows,
    kind: str,
) -> None:
    """Compare-and-set: between the check and the write, somebody wrote the status by hand."""
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    model = WorkflowRun if kind == "workflow_run" else WorkflowStep
    emitter = EventEmitter()
    emitter.on("state_changing", lambda _: session.execute(update(model).values(status="completed")))
    entity_id = run_id if kind == "workflow_run" else rows.step(run_id, "a").id
    before = rows.history(run_id)
    with pytest.raises(TransitionConflict) as caught:
        StateMachine(session, kind, emitter).transition_to(entity_id, "cancelled")
    assert caught.value.retryable
    assert caught.value.to_state == "cancelled"
    assert rows.history(run_id) == before
    assert (rows.run(run_id).status, rows.states(run_id)) == ("executing", {"a": "pending"})


def test_a_veto_names_what_it_stopped(controller: WorkflowController, session: Session) -> None:
    run = controller.create_workflow("x")
    emitter = EventEmitter()

    def veto(data: dict[str, Any]) -> None:
        raise TransitionVetoed(data["to_state"])

    emitter.on("state_changing", veto)
    with pytest.raises(TransitionVetoed, match="planning") as caught:
        StateMachine(session, "workflow_run", emitter).transition_to(run.id, "planning")
    assert caught.value.entity == ("workflow_run", run.id)
    assert (caught.value.from_state, caught.value.to_state) == ("draft", "planning")
