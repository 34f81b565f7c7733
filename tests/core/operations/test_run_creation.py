"""Making runs: what is stored, what is refused, and which run a key gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import (
    GuardRefused,
    InvalidPlan,
    WorkflowController,
)
from interlock.core.errors import InvalidName, NotJson, PayloadTooLarge
from interlock.core.json_values import checked_json
from interlock.core.settings import Settings
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


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


def test_a_naive_start_time_is_refused_at_the_door(controller: WorkflowController, rows: Rows) -> None:
    with pytest.raises(ValueError, match="start_at"):
        controller.enqueue_workflow(
            steps("a"),
            task_description="x",
            start_at=datetime(2030, 1, 1),  # noqa: DTZ001 - that it is naive is the point
        )
    assert rows.count() == (0, 0, 0)


class Stage(str, Enum):  # noqa: UP042 - StrEnum's members print as their values, these do not
    """An enumeration as people write it."""

    DONE = "done"


def test_members_of_a_text_enumeration_are_the_texts_that_they_hold(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    """In keys, arguments, input, meta, the run's own texts and a result, which an expression then finds."""
    plan = [
        step(Stage.DONE, args=[Stage.DONE]),
        step("b", Stage.DONE, when="results.done == 'done' && input == 'done'"),
    ]
    given: dict[str, Any] = {"input": Stage.DONE, "meta": {Stage.DONE: Stage.DONE}, "idempotency_key": Stage.DONE}
    run_id = controller.enqueue_workflow(
        plan, name=Stage.DONE, task_description=Stage.DONE, transitioned_by=Stage.DONE, **given
    )
    worker.run("done", checked_json("result", Stage.DONE))
    worker.run("b")
    run = rows.run(run_id)
    stored = (
        run.name,
        run.task_description,
        run.input,
        run.meta,
        run.idempotency_key,
        rows.step(run_id, "done").result,
    )
    assert stored == ("done", "done", "done", {"done": "done"}, "done", "done")
    assert rows.step(run_id, "done").spec["args"] == ["done"]
    assert rows.states(run_id) == {"done": "completed", "b": "completed"}
    assert {row.transitioned_by for row in rows.history(run_id)} >= {"done"}
