"""`WorkflowController`: making runs and moving them. What follows from steps is in test_flow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import (
    GuardRefused,
    InvalidPlan,
    StateMachineError,
    TransitionNotAllowed,
    WorkflowController,
)
from interlock.core.errors import CommandRefused, InvalidName, NotJson, PayloadTooLarge, RunNotFound
from interlock.core.settings import Settings
from tests.core.edges import WORKFLOW_STATES
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")

NOBODY = "00000000-0000-0000-0000-000000000000"


# making runs


def test_a_new_run_is_a_draft_with_its_first_history_row(controller: WorkflowController, rows: Rows) -> None:
    run = controller.create_workflow("count", name="counting", meta={"n": 1}, transitioned_by="me", input=[1, None])
    assert (run.status, run.name, run.task_description, run.session_id) == ("draft", "counting", "count", "default")
    assert (run.meta, run.input, run.seq, run.open_steps) == ({"n": 1}, [1, None], 1, 0)
    (first,) = rows.history(run.id)
    assert (first.from_state, first.to_state, first.transitioned_by) == (None, "draft", "me")


def test_name_and_description_come_from_the_plan_unless_given(controller: WorkflowController) -> None:
    plan = {"name": "nightly", "task_description": "sum up", "steps": steps("a")}
    run = controller.create_workflow(plan=plan)
    assert (run.name, run.task_description) == ("nightly", "sum up")
    run = controller.create_workflow("other", name="mine", plan=plan)
    assert (run.name, run.task_description) == ("mine", "other")


@pytest.mark.parametrize("make", ["create_workflow", "enqueue_workflow", "set_plan"])
def test_an_invalid_plan_is_refused_with_every_fault_and_nothing_is_stored(
    controller: WorkflowController,
    rows: Rows,
    make: str,
) -> None:
    plan = [step("a", "b"), step("b", "a"), step("c", "nobody"), step("c"), {"key": "d"}]
    run = controller.create_workflow("x", plan=steps("kept"))
    before = rows.count()
    call: dict[str, Callable[[], object]] = {
        "create_workflow": lambda: controller.create_workflow("x", plan=plan),
        "enqueue_workflow": lambda: controller.enqueue_workflow(plan, task_description="x"),
        "set_plan": lambda: controller.set_plan(run.id, plan),
    }
    with pytest.raises(InvalidPlan) as caught:
        call[make]()
    assert len(caught.value.faults) == 4
    for words in ("a → b → a", "nobody", "already the key", "steps[4].task"):
        assert any(words in fault for fault in caught.value.faults), (words, caught.value.faults)
    assert rows.count() == before
    assert rows.states(run.id) == {"kept": "pending"}


def test_input_must_be_json_within_the_limit(session: Session, rows: Rows) -> None:
    controller = WorkflowController(session, settings=Settings(max_argument_bytes=100))
    with pytest.raises(NotJson, match=r"input\['a'\]\[0\]: set is not JSON"):
        controller.create_workflow("x", input={"a": [{1}]})
    with pytest.raises(PayloadTooLarge, match="input: 102 bytes") as caught:
        controller.enqueue_workflow(steps("a"), task_description="x", input="x" * 100)
    assert (caught.value.size, caught.value.limit) == (102, 100)
    assert rows.count() == (0, 0, 0)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 201, "naïve", "a\n", 7])
def test_sessions_and_idempotency_keys_are_names(session: Session, rows: Rows, name: Any) -> None:
    with pytest.raises(InvalidName) as caught:
        WorkflowController(session, name)
    assert caught.value.field == "session_id"
    with pytest.raises(InvalidName, match="idempotency_key"):
        WorkflowController(session).enqueue_workflow(steps("a"), task_description="x", idempotency_key=name)
    assert rows.count() == (0, 0, 0)


def test_a_task_that_no_worker_knows_is_refused_at_the_door(session: Session) -> None:
    controller = WorkflowController(session, known_tasks={"tasks.a"})
    with pytest.raises(InvalidPlan, match=r"unknown task \"tasks\.b\""):
        controller.enqueue_workflow(steps("a", "b"), task_description="x")


def test_a_plan_can_be_replaced_while_draft_and_while_planning(
    controller: WorkflowController,
    session: Session,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    from interlock.core import StateMachine  # noqa: PLC0415 - only here

    run = controller.create_workflow("x", plan=[step("old"), step("older", "old")])
    controller.set_plan(run.id, steps("a", "b", "c"))
    assert (rows.states(run.id), rows.run(run.id).open_steps) == ({"a": "pending", "b": "pending", "c": "pending"}, 3)
    StateMachine(session, "workflow_run").transition_to(run.id, "planning")
    spec = controller.set_plan(run.id, {"deadline_s": 60, "steps": [step("d"), step("e", "d")]})
    assert [planned.key for planned in spec.steps] == ["d", "e"]
    controller.start_workflow(run.id)
    assert worker.queued == ["d"]
    with pytest.raises(CommandRefused, match="is executing"):
        controller.set_plan(run.id, steps("f"))
    assert rows.states(run.id) == {"d": "pending", "e": "pending"}
    assert rows.run(run.id).deadline_at is not None


def test_a_run_without_a_plan_or_a_description_cannot_start(controller: WorkflowController, rows: Rows) -> None:
    planless = controller.create_workflow("x")
    with pytest.raises(GuardRefused, match="has_valid_plan"):
        controller.start_workflow(planless.id)
    speechless = controller.create_workflow(plan=steps("a"))
    with pytest.raises(GuardRefused, match="has_task_description"):
        controller.start_workflow(speechless.id)
    assert rows.path(planless.id) == rows.path(speechless.id) == ["draft"]


def test_enqueue_writes_the_whole_way_in_one_transaction(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = controller.enqueue_workflow(
        [step("a"), step("b"), step("c", "a b")],
        task_description="x",
        transitioned_by="me",
    )
    history = [(row.step_key, row.from_state, row.to_state, row.transitioned_by) for row in rows.history(run_id)]
    assert history == [
        (None, None, "draft", "me"),
        (None, "draft", "planning", "me"),
        ("a", None, "pending", "me"),
        ("b", None, "pending", "me"),
        ("c", None, "pending", "me"),
        (None, "planning", "executing", "me"),
    ]
    assert [dispatch.key for dispatch in worker.queue] == ["a", "b"]
    assert rows.run(run_id).started_at is not None


def test_the_same_idempotency_key_gives_the_run_that_exists(
    controller: WorkflowController,
    session: Session,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    first = controller.enqueue_workflow(steps("a"), task_description="x", idempotency_key="order-7")
    again = controller.enqueue_workflow(steps("b"), task_description="y", idempotency_key="order-7")
    assert again == first
    assert worker.queued == ["a"]
    assert rows.count()[0] == 1
    other = WorkflowController(session, "other").enqueue_workflow(
        steps("a"),
        task_description="x",
        idempotency_key="order-7",
    )
    assert other != first


def test_a_delayed_run_that_could_never_start_is_refused_at_once(controller: WorkflowController, rows: Rows) -> None:
    """Nobody would be there to be told, an hour later."""
    with pytest.raises(GuardRefused, match="has_task_description"):
        controller.enqueue_workflow(steps("a"), start_at=datetime.now(UTC) + timedelta(hours=1))
    assert rows.count() == (0, 0, 0)


# the deadline


# what can be asked, against what happens


def _in_state(state: str, controller: WorkflowController, worker: WorkerDouble) -> str:
    """A run that got into `state` by the verbs."""
    if state == "draft":
        return controller.create_workflow("x", plan=steps("a")).id
    if state == "planning":
        run_id = controller.create_unplanned("x")
        controller.set_plan(run_id, steps("a"))
        return run_id
    plan = steps("a") if state != "waiting_approval" else [{"key": "a", "approval": True}]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    if state == "paused":
        controller.pause_workflow(run_id)
    elif state == "completed":
        worker.run("a")
    elif state == "failed":
        worker.run_failing("a")
    elif state == "cancelled":
        controller.cancel_workflow(run_id)
    return run_id


@pytest.mark.parametrize("state", WORKFLOW_STATES)
def test_every_can_agrees_with_what_the_call_does(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    state: str,
) -> None:
    """True exactly where the call succeeds; where False it raises, except cancelling again, a no-op."""
    expected = {
        "pause": state == "executing",
        "resume": state == "paused",
        "cancel": state not in ("completed", "failed", "cancelled"),
    }
    target = {"pause": "paused", "resume": "executing", "cancel": "cancelled"}
    for verb, possible in expected.items():
        run_id = _in_state(state, controller, worker)
        assert rows.run(run_id).status == state
        assert getattr(controller, f"can_{verb}")(run_id) is possible
        before = rows.history(run_id)
        if possible:
            getattr(controller, f"{verb}_workflow")(run_id, "because", "me")
            moved = next(row for row in rows.history(run_id)[len(before) :] if row.step_key is None)
            assert (moved.to_state, moved.transition_reason, moved.transitioned_by) == (target[verb], "because", "me")
            continue
        if (verb, state) == ("cancel", "cancelled"):
            controller.cancel_workflow(run_id)
        else:
            with pytest.raises(TransitionNotAllowed) as caught:
                getattr(controller, f"{verb}_workflow")(run_id)
            assert (caught.value.from_state, caught.value.to_state) == (state, target[verb])
        assert rows.history(run_id) == before


def test_an_unknown_pause_mode_is_refused(controller: WorkflowController, rows: Rows) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    with pytest.raises(CommandRefused, match="'gently' is not one of interrupt, drain, terminate") as caught:
        controller.pause_workflow(run_id, mode="gently")
    assert caught.value.code == "invalid"
    assert rows.run(run_id).status == "executing"


def test_a_run_that_does_not_exist_is_a_value_error(controller: WorkflowController) -> None:
    for run_id in (NOBODY, "not-a-uuid", ""):
        for call in _moving_calls(controller, run_id):
            with pytest.raises(ValueError, match="no workflow run") as caught:
                call()
            assert isinstance(caught.value, RunNotFound)
            assert not isinstance(caught.value, StateMachineError)
        assert controller.get_workflow_status(run_id) is None


def _moving_calls(controller: WorkflowController, run_id: str) -> list[Callable[[], object]]:
    return [
        lambda: controller.set_plan(run_id, steps("z")),
        lambda: controller.start_workflow(run_id),
        lambda: controller.pause_workflow(run_id),
        lambda: controller.resume_workflow(run_id),
        lambda: controller.cancel_workflow(run_id),
    ]


@pytest.mark.parametrize("state", ["draft", "executing", "paused"])
def test_no_method_shows_or_moves_anything_of_another_session(
    session: Session,
    worker: WorkerDouble,
    rows: Rows,
    state: str,
) -> None:
    theirs, mine = WorkflowController(session, "theirs"), WorkflowController(session, "mine")
    run_id = _in_state(state, theirs, worker)
    before = rows.count(), rows.run(run_id)
    for call in _moving_calls(mine, run_id):
        with pytest.raises(RunNotFound):
            call()
    assert mine.get_workflow_status(run_id) is None
    assert [mine.can_pause(run_id), mine.can_resume(run_id), mine.can_cancel(run_id)] == [False] * 3
    assert (rows.count(), rows.run(run_id)) == before
    assert theirs.can_cancel(run_id)


def test_the_status_tells_everything_of_a_run(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    plan = [step("b"), step("c", "b a", trigger="all_settled"), step("a", on_failure="continue")]
    run_id = controller.enqueue_workflow(plan, task_description="x", name="n")
    worker.run("b", 1)
    worker.run_failing("a")
    worker.claim("c", "worker@9")
    status = controller.get_workflow_status(run_id)
    assert status is not None
    assert (status["run_id"], status["status"], status["task_description"]) == (run_id, "executing", "x")
    assert status["seq"] == len(rows.history(run_id))
    assert status["allowed_transitions"] == ["paused", "waiting_approval", "completed", "failed", "cancelled"]
    assert [(one["key"], one["status"]) for one in status["steps"]] == [
        ("b", "completed"),
        ("c", "running"),
        ("a", "failed"),
    ]
    assert status["steps"][1]["after"] == ["b", "a"]
    assert status["steps"][1]["claimed_by"] == "worker@9"
    assert status["steps"][2]["error"] == "ValueError: no"
    assert status["counts"] == {"completed": 1, "running": 1, "failed": 1}
    assert status["started_at"] == rows.run(run_id).started_at.isoformat()
    assert status["completed_at"] is None
    assert status["pause"] is None
    controller.pause_workflow(run_id, transitioned_by="me", mode="drain")
    paused = controller.get_workflow_status(run_id)
    assert paused is not None
    assert paused["pause"] is not None
    assert (paused["pause"]["mode"], paused["pause"]["by"], paused["pause"]["draining"]) == ("drain", "me", 1)
    worker.complete("c")
    controller.resume_workflow(run_id)
    ended = controller.get_workflow_status(run_id)
    assert ended is not None
    assert (ended["status"], ended["allowed_transitions"]) == ("completed", [])
    assert ended["completed_at"] is not None


def test_a_naive_start_time_is_refused_at_the_door(controller: WorkflowController, rows: Rows) -> None:
    with pytest.raises(ValueError, match="start_at"):
        controller.enqueue_workflow(
            steps("a"),
            task_description="x",
            start_at=datetime(2030, 1, 1),  # noqa: DTZ001 - that it is naive is the point
        )
    assert rows.count() == (0, 0, 0)
