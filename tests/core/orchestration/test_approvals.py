"""Questions to people: who is asked, who may decide, what a decision does, and when a run waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core.attempts.attempts import Report
from interlock.core.attempts.step_calls import StepCalls
from interlock.core.errors import CommandRefused, EntityNotFound
from tests.core.asking import enqueue, gate
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from interlock.core.settings import Settings
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


# gates, and tasks that are decided about first


def test_a_gate_waits_for_a_person_and_its_decision_is_its_result(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, step("a"), gate(after="a"), step("z", "g"))
    worker.run("a")
    assert rows.states(run_id) == {"a": "completed", "g": "waiting_approval", "z": "pending"}
    assert rows.run(run_id).status == "waiting_approval"
    assert worker.queued == []
    controller.approve_step(run_id, "g", "looks fine", transitioned_by="ann")
    assert rows.step(run_id, "g").result == {
        "decision": "approved",
        "approved": True,
        "by": "ann",
        "comment": "looks fine",
    }
    assert rows.path(run_id, "g") == ["pending", "running", "waiting_approval", "running", "completed"]
    assert rows.step(run_id, "g").attempt == 0  # no worker has seen it
    worker.run_all()
    assert rows.path(run_id) == ["draft", "planning", "executing", "waiting_approval", "executing", "completed"]


def test_a_task_with_an_approval_is_sent_once_it_is_approved(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, step("g", approval=True))
    assert (worker.queued, rows.states(run_id)) == ([], {"g": "waiting_approval"})
    controller.approve_step(run_id, "g")
    assert (worker.queued, rows.states(run_id)) == (["g"], {"g": "running"})
    worker.run("g", 42)
    assert (rows.step(run_id, "g").result, rows.run(run_id).status) == (42, "completed")


def test_a_task_that_was_approved_is_not_asked_about_again_when_it_is_retried(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    policy = {"max_attempts": 2, "initial_delay_s": 0.0, "jitter": 0.0}
    run_id = enqueue(controller, step("g", approval=True, retry=policy, on_failure="continue"), step("o"))
    controller.approve_step(run_id, "g")
    for _ in range(2):
        worker.run_failing("g")
    controller.retry_step(run_id, "g")
    worker.run_all()
    assert rows.path(run_id, "g").count("waiting_approval") == 1
    assert rows.run(run_id).status == "completed"


def test_what_asks_for_nothing_cannot_be_decided(controller: WorkflowController) -> None:
    run_id = enqueue(controller, step("a"), gate(after="a"))
    for key in ("a", "g"):
        with pytest.raises(CommandRefused, match="asks for no approval"):
            controller.approve_step(run_id, key)
    with pytest.raises(EntityNotFound, match="nothing"):
        controller.approve_step(run_id, "nothing")


def test_several_gates_are_open_at_once_and_each_is_decided_by_itself(
    controller: WorkflowController,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, gate("g1"), gate("g2"), gate("g3"))
    for left, key in ((2, "g2"), (1, "g1"), (0, "g3")):
        controller.approve_step(run_id, key)
        assert rows.run(run_id).waiting_steps == left
        assert rows.run(run_id).status == ("waiting_approval" if left else "completed")
    assert rows.path(run_id)[2:] == ["executing", *["waiting_approval", "executing"] * 3, "completed"]


def test_a_gate_behind_a_gate_is_asked_when_the_first_is_decided(controller: WorkflowController, rows: Rows) -> None:
    run_id = enqueue(controller, gate("g1"), gate("g2", "g1"))
    assert rows.states(run_id) == {"g1": "waiting_approval", "g2": "pending"}
    controller.approve_step(run_id, "g1")
    assert rows.states(run_id) == {"g1": "completed", "g2": "waiting_approval"}
    assert rows.run(run_id).status == "waiting_approval"
    controller.approve_step(run_id, "g2")
    assert rows.run(run_id).status == "completed"


def test_a_body_that_asks_is_run_again_with_the_decision(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
    settings: Settings,
) -> None:
    calls = StepCalls(unchecked_database, settings)
    run_id = enqueue(controller, *steps("a"))
    first = worker.claim("a")
    assert calls.ask(first, {"name": "ship", "approvers": ["ann"]})
    assert (rows.run(run_id).status, rows.states(run_id)) == ("waiting_approval", {"a": "waiting_approval"})
    assert worker.complete("a") is Report.STALE
    controller.approve_step(run_id, "a", "go", transitioned_by="ann")
    second = worker.claim("a")
    assert second.task_id != first.task_id
    assert calls.decision(second, "ship") == {"decision": "approved", "approved": True, "by": "ann", "comment": "go"}
    worker.complete("a", 1)
    assert rows.run(run_id).status == "completed"


def test_a_body_whose_question_was_rejected_is_run_again_where_the_plan_goes_on(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
    settings: Settings,
) -> None:
    calls = StepCalls(unchecked_database, settings)
    run_id = enqueue(controller, *steps("a"))
    calls.ask(worker.claim("a"), {"name": "ship", "on_reject": "continue"})
    controller.reject_step(run_id, "a", transitioned_by="ann")
    second = worker.claim("a")
    decision = calls.decision(second, "ship")
    assert decision is not None
    assert decision["approved"] is False
    calls.ask(second, {"name": "again"})
    controller.approve_step(run_id, "a", transitioned_by="bob")
    worker.run("a", 1)
    assert rows.run(run_id).status == "completed"
