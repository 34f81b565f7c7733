"""A run's row, its plan and its start, in one unit of work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import (
    GuardRefused,
    WorkflowController,
)
from interlock.core.errors import CommandRefused
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


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
