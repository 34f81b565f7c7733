"""All 64 pairs of states of both tables, through `StateMachine`, on both kinds of database."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select

from interlock.core import EventEmitter, StateMachine, TransitionNotAllowed, open_database
from interlock.core.database.tables import ApprovalRequest, StateHistory, WorkflowRun, WorkflowStep, new_id
from interlock.core.database.types import clock, seconds_after
from tests.compiled_statements import SHARED_COMPILATION
from tests.core.edges import EDGES, STATES, STEP_EDGES, STEP_STATES, WORKFLOW_EDGES, WORKFLOW_STATES
from tests.core.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from interlock.core import Database
    from interlock.core.events import Effects

KINDS = ("workflow_run", "workflow_step")


@dataclass
class Board:
    """One entity per pair of states, each in the pair's first state with all its guards satisfied."""

    database: Database
    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    told: list[Any] = field(default_factory=list)
    emitted: list[dict[str, Any]] = field(default_factory=list)

    def place(self, kind: str) -> None:
        """Create the entities and their histories by hand, since no path of edges leads to some of them."""
        self.ids = {pair: new_id() for pair in product(STATES[kind], repeat=2)}
        place = _place_run if kind == "workflow_run" else _place_step
        with self.database.engine.begin() as connection:
            for (source, _), entity_id in self.ids.items():
                place(connection, entity_id, source)

    def snapshot(self) -> list[Any]:
        """Every row of every table."""
        tables = (WorkflowRun, WorkflowStep, StateHistory, ApprovalRequest)
        with self.database.reading() as connection:
            return [connection.execute(select(table.__table__).order_by(table.id)).all() for table in tables]

    def machine(self, session: Session, kind: str) -> StateMachine:
        """A machine whose emitter and whose database's handlers are both listened to."""
        emitter = EventEmitter()
        emitter.on("state_changing", lambda data: self.emitted.append({**data, "event": "state_changing"}))
        emitter.on("state_changed", lambda data: self.emitted.append({**data, "event": "state_changed"}))

        def deliver(effects: Effects) -> None:
            self.told += [*effects.changes, *effects.dispatches, *effects.interrupts]

        self.database.after_commit.append(deliver)
        return StateMachine(session, kind, event_emitter=emitter)


def _place_run(connection: Connection, run_id: str, state: str) -> None:
    connection.execute(
        insert(WorkflowRun.__table__),
        {"id": run_id, "status": state, "task_description": "matrix", "seq": 1, "open_steps": 1},
    )
    connection.execute(
        insert(WorkflowStep.__table__),
        {"id": new_id(), "run_id": run_id, "key": "only", "status": "pending", "spec": {}},
    )
    connection.execute(
        insert(ApprovalRequest.__table__).values(
            id=new_id(),
            run_id=run_id,
            session_id="default",
            decision="approved",
            decided_at=seconds_after(1),
        ),
    )
    _begin_history(connection, "workflow_run", run_id, run_id, state)


def _place_step(connection: Connection, step_id: str, state: str) -> None:
    run_id = new_id()
    connection.execute(
        insert(WorkflowRun.__table__),
        {"id": run_id, "status": "executing", "seq": 1, "open_steps": 1},
    )
    connection.execute(
        insert(WorkflowStep.__table__),
        {"id": step_id, "run_id": run_id, "key": "only", "status": state, "spec": {}},
    )
    _begin_history(connection, "workflow_step", step_id, run_id, state)


def _begin_history(connection: Connection, kind: str, entity_id: str, run_id: str, state: str) -> None:
    connection.execute(
        insert(StateHistory.__table__).values(
            entity_type=kind,
            entity_id=entity_id,
            session_id="default",
            workflow_id=run_id,
            seq=1,
            to_state=state,
            transitioned_by="matrix",
            created_at=clock(),
        ),
    )


@pytest.fixture
def board(core_url: str) -> Iterator[Board]:
    """An empty board on each kind of database."""
    board = Board(open_database(core_url, **SHARED_COMPILATION))
    yield board
    board.database.dispose()


@pytest.mark.parametrize(("kind", "moves", "refusals"), [("workflow_run", 14, 42), ("workflow_step", 13, 43)])
def test_every_pair_of_states_does_what_the_table_says(board: Board, kind: str, moves: int, refusals: int) -> None:
    """The edges succeed with one history row and one event; 8 pairs are no-ops; the others raise and leave no trace."""
    board.place(kind)
    moved, stayed, refused = [], [], []
    with board.database.session() as session:
        machine = board.machine(session, kind)
        for pair, entity_id in board.ids.items():
            if pair in EDGES[kind]:
                _expect_a_move(board, machine, entity_id, pair)
                moved.append(pair)
            elif pair[0] == pair[1]:
                assert machine.transition_to(entity_id, pair[1]) is False
                _expect_no_trace(board, machine, entity_id, pair[0])
                stayed.append(pair)
            else:
                before = board.snapshot()
                _expect_a_refusal(board, machine, entity_id, pair)
                assert board.snapshot() == before
                refused.append(pair)
    assert (len(moved), len(stayed), len(refused)) == (moves, 8, refusals)
    assert Rows(board.database).count() == (64, 64, 64 + moves)


def _expect_a_move(board: Board, machine: StateMachine, entity_id: str, pair: tuple[str, str]) -> None:
    source, target = pair
    assert machine.can_transition_to(entity_id, target)
    assert machine.transition_to(entity_id, target, reason="because", transitioned_by="me", meta={"a": 1}) is True
    assert machine.get_current_state(entity_id) == target
    row = machine.get_state_history(entity_id)[-1]
    assert (row.seq, row.from_state, row.to_state) == (2, source, target)
    assert (row.transition_reason, row.transitioned_by, row.meta) == ("because", "me", {"a": 1})
    assert [(change.seq, change.history_id) for change in board.told] == [(2, row.id)]
    assert [(data["event"], data["from_state"], data["to_state"]) for data in board.emitted] == [
        ("state_changing", source, target),
        ("state_changed", source, target),
    ]
    board.told.clear()
    board.emitted.clear()


def _expect_a_refusal(board: Board, machine: StateMachine, entity_id: str, pair: tuple[str, str]) -> None:
    source, target = pair
    assert not machine.can_transition_to(entity_id, target)
    with pytest.raises(TransitionNotAllowed) as caught:
        machine.transition_to(entity_id, target)
    error = caught.value
    assert (error.entity_id, error.from_state, error.to_state) == (entity_id, source, target)
    kind = error.entity_type
    assert kind is not None
    assert set(error.allowed) == {to_state for from_state, to_state in EDGES[kind] if from_state == source}
    _expect_no_trace(board, machine, entity_id, source)


def _expect_no_trace(board: Board, machine: StateMachine, entity_id: str, state: str) -> None:
    assert machine.get_current_state(entity_id) == state
    assert [row.seq for row in machine.get_state_history(entity_id)] == [1]
    assert board.told == []
    assert board.emitted == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_allowed_transitions_of_every_state_are_the_edges_that_leave_it(board: Board, kind: str) -> None:
    board.place(kind)
    with board.database.session() as session:
        machine = board.machine(session, kind)
        for state in STATES[kind]:
            allowed = machine.get_allowed_transitions(board.ids[state, state])
            assert len(allowed) == len(set(allowed))
            assert set(allowed) == {target for source, target in EDGES[kind] if source == state}


def test_the_matrices_are_complete() -> None:
    for states, edges, refusals in ((WORKFLOW_STATES, WORKFLOW_EDGES, 42), (STEP_STATES, STEP_EDGES, 43)):
        pairs = set(product(states, repeat=2))
        assert len(pairs) == 64
        assert len(pairs - edges - {(state, state) for state in states}) == refusals
