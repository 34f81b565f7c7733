"""What SPEC section 2 says of `StateMachine`, on both kinds of database; the matrix and transactions are elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import select

from interlock.core import EntityNotFound, StateMachine, UnknownState, WorkflowController, WorkflowStep
from tests.core.rows import counted, steps

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

NOBODY = "00000000-0000-0000-0000-000000000000"


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


def test_a_step_that_was_moved_to_paused_is_as_one_that_a_person_paused(
    controller: WorkflowController, worker: WorkerDouble, session: Session, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    worker.claim("a")
    machine, step_id = StateMachine(session, "workflow_step"), rows.step(run_id, "a").id
    machine.transition_to(step_id, "paused", transitioned_by="op1")
    assert (rows.step(run_id, "a").paused_by, rows.run(run_id).status) == ("op1", "executing")
    controller.pause_workflow(run_id)
    controller.resume_workflow(run_id)
    assert rows.states(run_id)["a"] == "paused"
    controller.resume_step(run_id, "a")
    assert (rows.states(run_id)["a"], rows.step(run_id, "a").paused_by) == ("running", None)
