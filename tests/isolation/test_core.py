"""Controller and state machine: for an actor of another session there is no such run, whatever is called.

The tables below are compared with the classes: a method that is in neither of them fails the test.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from interlock.core import InterlockError, StateMachine, WorkflowController
from tests.isolation.stage import OURS, PLAN, THEIRS, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.stage import Stage

CONTROLLER: Final[dict[str, tuple[str, Callable[[Any, str], Any]]]] = {
    "set_plan": ("planning", lambda c, run: c.set_plan(run, PLAN)),
    "start_workflow": ("planned", lambda c, run: c.start_workflow(run)),
    "pause_workflow": ("executing", lambda c, run: c.pause_workflow(run)),
    "resume_workflow": ("paused", lambda c, run: c.resume_workflow(run)),
    "cancel_workflow": ("executing", lambda c, run: c.cancel_workflow(run)),
    "rerun_workflow": ("ended", lambda c, run: c.rerun_workflow(run)),
    "pause_step": ("executing", lambda c, run: c.pause_step(run, "a")),
    "resume_step": ("step_paused", lambda c, run: c.resume_step(run, "a")),
    "approve_step": ("waiting", lambda c, run: c.approve_step(run, "a")),
    "reject_step": ("waiting", lambda c, run: c.reject_step(run, "a")),
    "retry_step": ("failed", lambda c, run: c.retry_step(run, "a")),
    "settle_step": ("failed", lambda c, run: c.settle_step(run, "a", 1, "by hand")),
    "get_workflow_status": ("executing", lambda c, run: c.get_workflow_status(run)),
    "can_pause": ("executing", lambda c, run: c.can_pause(run)),
    "can_resume": ("paused", lambda c, run: c.can_resume(run)),
    "can_cancel": ("executing", lambda c, run: c.can_cancel(run)),
}
MAKES_A_RUN: Final = {"create_unplanned", "create_workflow", "enqueue_workflow"}

MACHINE: Final[dict[str, Callable[[StateMachine, str], Any]]] = {
    "transition_to": lambda machine, run: machine.transition_to(run, "paused"),
    "can_transition_to": lambda machine, run: machine.can_transition_to(run, "paused"),
    "get_allowed_transitions": lambda machine, run: machine.get_allowed_transitions(run),
    "get_state_history": lambda machine, run: machine.get_state_history(run),
    "get_current_state": lambda machine, run: machine.get_current_state(run),
}


def _methods(cls: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}


def _outcome(call: Callable[[], Any], run_id: str) -> object:
    """What a caller gets, the run's id apart: a value, or an error."""
    try:
        return call()
    except InterlockError as error:
        return told(error, run_id)


def test_every_method_is_in_a_table() -> None:
    assert set(CONTROLLER) | MAKES_A_RUN == _methods(WorkflowController)
    assert set(MACHINE) == _methods(StateMachine)


@pytest.mark.parametrize("method", CONTROLLER)
def test_a_controller_of_another_session_has_no_such_run(stage: Stage, method: str) -> None:
    state, call = CONTROLLER[method]
    run_id, missing = stage.run_in(state), str(uuid4())
    before = stage.picture()
    with stage.database.session() as session:
        theirs = WorkflowController(session, THEIRS, settings=stage.settings)
        existing = _outcome(lambda: call(theirs, run_id), run_id)
        assert existing == _outcome(lambda: call(theirs, missing), missing)
    assert existing in (None, False) or "RunNotFound" in str(existing)
    assert stage.picture() == before
    with stage.database.session() as session:
        ours = call(WorkflowController(session, OURS, settings=stage.settings), run_id)
    assert ours is not False, "in its own session it would have succeeded"


@pytest.mark.parametrize("entity", ["workflow_run", "workflow_step"])
@pytest.mark.parametrize("method", MACHINE)
def test_a_machine_of_another_session_has_no_such_entity(unchecked_stage: Stage, method: str, entity: str) -> None:
    stage = unchecked_stage
    run_id = stage.run_in("executing")
    entity_id = run_id if entity == "workflow_run" else stage.worker.held["a"].step_id
    missing = str(uuid4())
    before = stage.picture()
    call = MACHINE[method]
    with stage.database.session() as session:
        theirs = StateMachine(session, entity, session_id=THEIRS)
        existing = _outcome(lambda: call(theirs, entity_id), entity_id)
        assert existing == _outcome(lambda: call(theirs, missing), missing)
    assert existing in (None, False, []) or "EntityNotFound" in str(existing)
    assert stage.picture() == before
    with stage.database.session() as session:
        assert call(StateMachine(session, entity, session_id=OURS), entity_id), "in its own session it tells, or moves"
