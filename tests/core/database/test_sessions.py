"""Whose transaction a move is made in, and when it is told: after the outermost commit, or never."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from interlock.core import (
    EventEmitter,
    StateMachine,
    TransitionNotAllowed,
    TransitionVetoed,
    WorkflowController,
    WorkflowRun,
)
from tests.core.checker import check
from tests.core.rows import steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core import Database
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble


class Ear:
    """Listens to one emitter; `heard` are the target states of `state_changed`, in order."""

    def __init__(self) -> None:
        self.emitter = EventEmitter()
        self.heard: list[str] = []
        self.emitter.on("state_changed", lambda data: self.heard.append(data["to_state"]))


@pytest.fixture
def ear() -> Ear:
    """An emitter and what was heard of it."""
    return Ear()


@pytest.fixture
def run_id(unchecked_database: Database) -> str:
    """A run in draft."""
    with unchecked_database.session() as session:
        return WorkflowController(session).create_workflow("x").id


@pytest.fixture
def outsider(database: Database, run_id: str) -> Iterator[StateMachine]:  # noqa: ARG001 - the run comes first
    """A machine on a connection of its own, which sees only what is committed."""
    with database.session() as session:
        yield StateMachine(session, "workflow_run")


def test_without_a_transaction_a_move_commits_its_own(
    session: Session,
    outsider: StateMachine,
    run_id: str,
    ear: Ear,
    worker: WorkerDouble,
) -> None:
    StateMachine(session, "workflow_run", ear.emitter).transition_to(run_id, "planning")
    assert not session.in_transaction()
    assert outsider.get_current_state(run_id) == "planning"
    assert ear.heard == ["planning"]
    assert [change.to_state for change in worker.changes] == ["planning"]


def test_a_refused_move_leaves_no_transaction_open(session: Session, outsider: StateMachine, run_id: str) -> None:
    machine = StateMachine(session, "workflow_run")
    with pytest.raises(TransitionNotAllowed):
        machine.transition_to(run_id, "completed")
    assert not session.in_transaction()
    assert outsider.transition_to(run_id, "planning")


def test_a_look_leaves_no_transaction_open(session: Session, run_id: str) -> None:
    """The next move would join it, and wait for a commit that nobody thinks of."""
    machine, controller = StateMachine(session, "workflow_run"), WorkflowController(session)
    machine.get_current_state(run_id)
    machine.can_transition_to(run_id, "planning")
    machine.get_allowed_transitions(run_id)
    machine.get_state_history(run_id)
    controller.get_workflow_status(run_id)
    assert controller.can_cancel(run_id)
    assert not session.in_transaction()


def test_a_move_joins_the_open_transaction_and_is_told_after_its_commit(
    session: Session,
    outsider: StateMachine,
    run_id: str,
    ear: Ear,
    worker: WorkerDouble,
) -> None:
    machine = StateMachine(session, "workflow_run", ear.emitter)
    session.execute(text("SELECT 1"))
    machine.transition_to(run_id, "planning")
    machine.transition_to(run_id, "cancelled")
    assert machine.get_current_state(run_id) == "cancelled"
    assert outsider.get_current_state(run_id) == "draft"
    assert ear.heard == []
    assert worker.changes == []
    session.commit()
    assert outsider.get_current_state(run_id) == "cancelled"
    assert ear.heard == ["planning", "cancelled"]
    assert [change.seq for change in worker.changes] == [2, 3]


def test_a_rolled_back_transaction_moves_and_tells_nothing(
    session: Session,
    outsider: StateMachine,
    run_id: str,
    ear: Ear,
    worker: WorkerDouble,
) -> None:
    machine = StateMachine(session, "workflow_run", ear.emitter)
    session.begin()
    machine.transition_to(run_id, "planning")
    session.rollback()
    assert outsider.get_current_state(run_id) == "draft"
    machine.transition_to(run_id, "cancelled")
    assert ear.heard == ["cancelled"]
    assert [(change.seq, change.to_state) for change in worker.changes] == [(2, "cancelled")]


def test_a_session_closed_without_a_commit_tells_nothing(
    database: Database,
    outsider: StateMachine,
    run_id: str,
    ear: Ear,
) -> None:
    """Closing rolls back without saying so, and the session may be used again."""
    session = Session(database.engine)
    machine = StateMachine(session, "workflow_run", ear.emitter)
    session.begin()
    machine.transition_to(run_id, "planning")
    session.close()
    with session.begin():
        machine.transition_to(run_id, "cancelled")
    assert ear.heard == ["cancelled"]
    assert [row.to_state for row in outsider.get_state_history(run_id)] == ["draft", "cancelled"]


def test_a_rolled_back_savepoint_takes_only_its_own_with_it(
    session: Session,
    outsider: StateMachine,
    run_id: str,
    ear: Ear,
) -> None:
    other = WorkflowController(session).create_workflow("y").id
    machine = StateMachine(session, "workflow_run", ear.emitter)
    with session.begin():
        machine.transition_to(run_id, "planning")
        savepoint = session.begin_nested()
        machine.transition_to(run_id, "cancelled")
        machine.transition_to(other, "cancelled")
        savepoint.rollback()
        machine.transition_to(other, "planning")
    assert outsider.get_current_state(run_id) == "planning"
    assert outsider.get_current_state(other) == "planning"
    assert ear.heard == ["planning", "planning"]


def test_a_released_savepoint_tells_nothing_yet(session: Session, run_id: str, ear: Ear) -> None:
    machine = StateMachine(session, "workflow_run", ear.emitter)
    session.begin()
    with session.begin_nested(), session.begin_nested():
        machine.transition_to(run_id, "planning")
    assert ear.heard == []
    session.commit()
    assert ear.heard == ["planning"]


def test_a_released_savepoint_inside_a_rolled_back_one_tells_nothing(session: Session, run_id: str, ear: Ear) -> None:
    machine = StateMachine(session, "workflow_run", ear.emitter)
    with session.begin():
        outer = session.begin_nested()
        with session.begin_nested():
            machine.transition_to(run_id, "planning")
        outer.rollback()
    assert ear.heard == []


def test_a_refused_move_leaves_the_callers_transaction_usable(
    session: Session,
    outsider: StateMachine,
    run_id: str,
) -> None:
    """It fails inside its savepoint: what the caller did before can still be committed."""
    machine = StateMachine(session, "workflow_run")
    with session.begin():
        machine.transition_to(run_id, "planning")
        with pytest.raises(TransitionNotAllowed):
            machine.transition_to(run_id, "completed")
    assert outsider.get_current_state(run_id) == "planning"


def test_a_producers_rollback_leaves_no_workflow(
    session: Session,
    database: Database,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """A rolled-back order leaves nothing, and a committed one is dispatched after the commit."""
    controller = WorkflowController(session)
    session.begin()
    controller.enqueue_workflow(steps("a"), task_description="x")
    session.rollback()
    assert rows.count() == (0, 0, 0)
    assert worker.queue == []
    with session.begin():
        controller.enqueue_workflow(steps("a"), task_description="x")
        assert worker.queue == []
    assert worker.queued == ["a"]
    check(database)


@pytest.mark.parametrize("looked", [False, True])
def test_inside_an_outer_transaction_of_the_connection_nothing_is_told(
    database: Database,
    run_id: str,
    ear: Ear,
    rows: Rows,
    looked: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Whoever holds it may still roll it back, whatever the session commits."""
    with database.engine.connect() as connection, connection.begin() as outer:
        session = Session(connection)
        machine = StateMachine(session, "workflow_run", ear.emitter)
        if looked:
            assert machine.get_current_state(run_id) == "draft"
        machine.transition_to(run_id, "planning")
        assert ear.heard == []
        with session.begin():
            machine.transition_to(run_id, "cancelled")
        assert machine.get_current_state(run_id) == "cancelled"
        session.close()
        outer.rollback()
    assert ear.heard == []
    assert rows.path(run_id) == ["draft"]


def test_a_session_on_a_free_connection_commits_and_tells(
    database: Database,
    outsider: StateMachine,
    run_id: str,
    ear: Ear,
) -> None:
    with database.engine.connect() as connection:
        machine = StateMachine(Session(connection), "workflow_run", ear.emitter)
        assert machine.get_current_state(run_id) == "draft"
        assert not connection.in_transaction()
        machine.transition_to(run_id, "planning")
    assert outsider.get_current_state(run_id) == "planning"
    assert ear.heard == ["planning"]


def test_what_the_caller_has_not_flushed_is_written_with_the_move(
    session: Session,
    outsider: StateMachine,
    run_id: str,
    rows: Rows,
) -> None:
    run = session.get(WorkflowRun, run_id)
    assert run is not None
    run.name = "renamed"
    StateMachine(session, "workflow_run").transition_to(run_id, "planning")
    session.commit()
    assert rows.run(run_id).name == "renamed"
    assert outsider.get_current_state(run_id) == "planning"


def test_a_veto_stops_the_whole_cascade(session: Session, worker: WorkerDouble, rows: Rows, database: Database) -> None:
    """The run's own move was accepted; the veto of one step's undoes it."""
    run_id = WorkflowController(session).enqueue_workflow(steps("a", "b", "c"), task_description="x")
    before, changes = rows.history(run_id), list(worker.changes)
    emitter = EventEmitter()

    def keep_b(data: dict[str, Any]) -> None:
        if data["step"] == "b":
            raise TransitionVetoed("b must go on")

    emitter.on("state_changing", keep_b)
    controller = WorkflowController(session, event_emitter=emitter)
    with pytest.raises(TransitionVetoed):
        controller.cancel_workflow(run_id)
    assert rows.history(run_id) == before
    assert worker.changes == changes
    assert set(rows.states(run_id).values()) == {"pending"}
    with session.begin(), pytest.raises(TransitionVetoed):
        controller.cancel_workflow(run_id)
    assert rows.history(run_id) == before
    check(database)


def test_what_workers_report_cannot_be_vetoed(session: Session, worker: WorkerDouble, database: Database) -> None:
    """It has happened; the veto is heard, logged and overruled."""
    vetoed: list[str] = []

    def veto(data: dict[str, Any]) -> None:
        vetoed.append(data["to_state"])
        raise TransitionVetoed("no")

    WorkflowController(session).enqueue_workflow(steps("a"), task_description="x")
    database.emitter.on("state_changing", veto)
    worker.run("a", 1)
    assert vetoed == ["running", "completed", "completed"]
