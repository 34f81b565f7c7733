"""`EventEmitter`, and what listeners are told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import EventEmitter, StateMachine, TransitionVetoed, WorkflowController

from .rows import steps

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database

    from .rows import Rows
    from .worker_double import WorkerDouble


def _failing(data: dict[str, Any]) -> None:
    raise RuntimeError(data.get("to_state"))


def test_listeners_are_called_in_order_and_only_for_their_event() -> None:
    emitter, heard = EventEmitter(), []
    emitter.on("a", lambda data: heard.append(("first", data["n"])))
    emitter.on("a", lambda data: heard.append(("second", data["n"])))
    emitter.emit("a", {"n": 1})
    emitter.emit("b", {"n": 2})
    assert heard == [("first", 1), ("second", 1)]


def test_off_stops_a_listener_and_ignores_an_unknown_one() -> None:
    emitter, heard = EventEmitter(), []
    listener = emitter.on("a", heard.append)
    emitter.off("a", _failing)
    emitter.off("b", listener)
    emitter.off("a", listener)
    emitter.emit("a", {})
    assert heard == []
    assert not emitter.listens("a")


def test_a_listener_may_take_itself_off_while_it_is_called() -> None:
    emitter, heard = EventEmitter(), []

    def once(data: dict[str, Any]) -> None:
        heard.append(data["n"])
        emitter.off("a", once)

    emitter.on("a", once)
    emitter.on("a", lambda data: heard.append(-data["n"]))
    emitter.emit("a", {"n": 1})
    emitter.emit("a", {"n": 2})
    assert heard == [1, -1, -2]


def test_a_failing_listener_is_logged_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    emitter, heard = EventEmitter(), []
    emitter.on("a", _failing)
    emitter.on("a", heard.append)
    with caplog.at_level(logging.ERROR, "interlock.events"):
        emitter.emit("a", {"to_state": "planning"})
    assert heard == [{"to_state": "planning"}]
    assert "_failing" in caplog.text
    assert "RuntimeError: planning" in caplog.text


def test_a_veto_is_raised_after_every_listener_was_called() -> None:
    emitter, heard = EventEmitter(), []

    def veto(data: dict[str, Any]) -> None:
        raise TransitionVetoed(str(data))

    emitter.on("state_changing", veto)
    emitter.on("state_changing", heard.append)
    with pytest.raises(TransitionVetoed):
        emitter.emit("state_changing", {})
    assert heard == [{}]


def test_a_veto_after_the_fact_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    emitter = EventEmitter()

    def veto(data: dict[str, Any]) -> None:
        raise TransitionVetoed(str(data))

    emitter.on("state_changed", veto)
    with caplog.at_level(logging.ERROR, "interlock.events"):
        emitter.emit("state_changed", {})
    assert "has already happened" in caplog.text


@pytest.mark.parametrize("event", ["state_changing", "state_changed"])
def test_a_failing_listener_stops_no_transition(session: Session, rows: Rows, event: str) -> None:
    emitter = EventEmitter()
    emitter.on(event, _failing)
    run = WorkflowController(session).create_workflow("x")
    assert StateMachine(session, "workflow_run", emitter).transition_to(run.id, "planning")
    assert rows.path(run.id) == ["draft", "planning"]


def test_a_failing_handler_after_the_commit_stops_no_other(database: Database, session: Session) -> None:
    told: list[Any] = []
    database.after_commit.insert(0, lambda effects: _failing({"to_state": str(effects)}))
    database.after_commit.append(told.append)
    WorkflowController(session).create_workflow("x")
    assert len(told) == 1


def test_state_changing_comes_before_the_write_and_state_changed_after_the_commit(
    session: Session,
    database: Database,
    rows: Rows,
) -> None:
    run = WorkflowController(session).create_workflow("x")
    seen: list[tuple[str, dict[str, Any], list[str]]] = []
    emitter = EventEmitter()
    for event in ("state_changing", "state_changed"):
        emitter.on(event, lambda data, event=event: seen.append((event, data, rows.path(run.id))))
    StateMachine(session, "workflow_run", emitter).transition_to(run.id, "planning", "why", "me", {"k": 1})
    (before, asked, path_before), (after, told, path_after) = seen
    assert (before, path_before) == ("state_changing", ["draft"])
    assert (after, path_after) == ("state_changed", ["draft", "planning"])
    assert (asked["seq"], asked["created_at"]) == (0, None)
    assert told == {
        "entity_type": "workflow_run",
        "entity_id": run.id,
        "workflow_id": run.id,
        "session_id": "default",
        "step": None,
        "from_state": "draft",
        "to_state": "planning",
        "reason": "why",
        "transitioned_by": "me",
        "seq": 2,
        "attempt": None,
        "created_at": rows.history(run.id)[1].created_at.isoformat(),
        "meta": {"k": 1},
    }
    assert {**told, "seq": 0, "created_at": None} == asked
    assert database.after_commit == []


def test_every_row_of_the_history_is_told_once_and_in_order(
    session: Session,
    worker: WorkerDouble,
    database: Database,
    rows: Rows,
) -> None:
    heard: list[int] = []
    database.emitter.on("state_changed", lambda data: heard.append(data["seq"]))
    run_id = WorkflowController(session).enqueue_workflow(steps("a", "b", "c"), task_description="x")
    worker.run_all()
    history = rows.history(run_id)
    assert heard == [row.seq for row in history] == list(range(1, len(history) + 1))
    assert [change.history_id for change in worker.changes] == [row.id for row in history]
    assert [change.step_key for change in worker.changes] == [row.step_key for row in history]
    assert [change.created_at for change in worker.changes] == [row.created_at for row in history]
