"""Transitions as they are written: conflicts with code that takes no lock, and vetoes of listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import (
    EventEmitter,
    StateMachine,
    TransitionVetoed,
    WorkflowController,
)
from tests.core.rows import steps

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble


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


def test_a_veto_of_one_step_stops_the_whole_cascade(
    controller: WorkflowController, worker: WorkerDouble, database: Database, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b", "c"), task_description="x")
    for key in "abc":
        worker.claim(key)
    heard: list[tuple[str | None, str]] = []

    def veto(data: dict[str, Any]) -> None:
        heard.append((data["step"], data["to_state"]))
        if data["step"] == "b":
            raise TransitionVetoed

    database.emitter.on("state_changing", veto)
    worker.changes.clear()
    before = rows.count()
    for verb, state in (("pause", "paused"), ("cancel", "cancelled")):
        with pytest.raises(TransitionVetoed) as caught:
            getattr(controller, f"{verb}_workflow")(run_id)
        assert (caught.value.entity_id, caught.value.to_state) == (rows.step(run_id, "b").id, state)
        assert ("b", state) in heard
    assert (rows.count(), worker.changes) == (before, [])
    assert rows.run(run_id).status == "executing"
    assert set(rows.states(run_id).values()) == {"running"}
    database.emitter.off("state_changing", veto)
    controller.cancel_workflow(run_id)
