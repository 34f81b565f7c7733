"""A new run of a workflow that ended badly: what it takes over, what it does again, and how the two are related."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from interlock.core.database.tables import ApprovalRequest
from interlock.core.errors import CommandRefused
from interlock.core.operations.rerun import stored_plan
from tests.core.rows import counted, step, steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


def _enqueue(controller: WorkflowController, *plan: dict[str, Any], **more: Any) -> str:
    head = more.pop("head", {})
    return controller.enqueue_workflow({"steps": list(plan), "task_description": "x", **head}, **more)


def _failed(controller: WorkflowController, worker: WorkerDouble, **more: Any) -> str:
    """A run in which a and b completed, c failed, and d was never begun."""
    run_id = _enqueue(controller, step("a"), step("b", "a"), step("c", "a"), step("d", "b c"), **more)
    worker.run("a", {"n": 1})
    worker.run("b", None)
    worker.run_failing("c")
    worker.queue.clear()
    return run_id


def test_what_had_completed_is_taken_over_and_the_rest_is_run(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    old = _failed(controller, worker)
    new = controller.rerun_workflow(old, "the network is back", transitioned_by="ann")
    assert rows.run(new).forked_from == old
    assert rows.states(new) == {"a": "completed", "b": "completed", "c": "pending", "d": "pending"}
    assert (rows.step(new, "a").result, rows.step(new, "b").result) == ({"n": 1}, None)
    assert worker.queued == ["c"]
    worker.run_all()
    assert rows.run(new).status == "completed"
    assert rows.run(old).status == "failed"


def test_the_history_says_from_which_run_a_result_was_taken(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    old = _failed(controller, worker)
    new = controller.rerun_workflow(old, transitioned_by="ann")
    assert rows.path(new, "a") == ["pending", "running", "completed"]
    for row in rows.history(new):
        if row.step_key == "a" and row.from_state is not None:
            assert row.meta == {"reused_from": old}
            assert (row.transitioned_by, row.transition_reason) == ("ann", f"completed in {old}")
    assert rows.history(new)[0].transition_reason == f"run again after {old}"
    assert rows.step(new, "a").attempt == 0


def test_input_meta_name_and_plan_are_those_of_the_old_run(
    controller: WorkflowController,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    plan = [
        step("a", args=[{"$expr": "input.n"}], timeout_s=5, retry={"max_attempts": 2}, queue="q", priority=3),
        step("z", "a", when="results.a", on_failure="continue", trigger="all_settled"),
        step("m", "a", map={"over": "results.a", "max_parallel": 2}),
        {"key": "g", "after": ["a"], "approval": {"approvers": ["ann"], "deadline_s": 60}},
    ]
    head = {"name": "orders", "max_parallel": 3, "deadline_s": 600, "on_external_revoke": "pause"}
    old = _enqueue(controller, *plan, head=head, input={"n": 7}, meta={"who": "me"})
    controller.cancel_workflow(old)
    new = controller.rerun_workflow(old)
    before, after = rows.run(old), rows.run(new)
    for column in ("input", "meta", "name", "task_description", "spec", "max_parallel", "session_id"):
        assert getattr(after, column) == getattr(before, column), column
    assert (before.input, before.meta, after.idempotency_key) == ({"n": 7}, {"who": "me"}, None)
    assert after.deadline_at is not None
    with unchecked_database.reading() as connection:
        assert stored_plan(connection, new) == stored_plan(connection, old)
    controller.cancel_workflow(new)


def test_a_cancelled_run_can_be_run_again(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    old = _enqueue(controller, *steps("a", "b"), step("z", "a b"))
    worker.run("a", 1)
    controller.cancel_workflow(old)
    worker.queue.clear()
    new = controller.rerun_workflow(old)
    assert worker.queued == ["b"]
    worker.run_all()
    assert rows.run(new).status == "completed"


def test_only_what_ended_failed_or_cancelled_is_run_again(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, *steps("a"))
    for status in ("executing", "paused", "completed"):
        if status == "paused":
            controller.pause_workflow(run_id)
        if status == "completed":
            controller.resume_workflow(run_id)
            worker.queue.pop()
            worker.run_all()
        before = rows.count()
        with pytest.raises(CommandRefused, match=f"this one is {status}"):
            controller.rerun_workflow(run_id)
        assert rows.count() == before


def test_a_run_that_never_had_a_plan_cannot_be_run_again(controller: WorkflowController, rows: Rows) -> None:
    run = controller.create_workflow("x")
    controller.cancel_workflow(run.id)
    before = rows.count()
    with pytest.raises(CommandRefused, match="no plan"):
        controller.rerun_workflow(run.id)
    assert rows.count() == before


def test_a_rerun_can_be_run_again_and_keeps_what_its_predecessors_completed(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    first = _failed(controller, worker)
    second = controller.rerun_workflow(first)
    worker.run("c", "C")
    worker.run_failing("d")
    third = controller.rerun_workflow(second)
    assert rows.run(third).forked_from == second
    assert [rows.step(third, key).result for key in "abc"] == [{"n": 1}, None, "C"]
    assert worker.queued == ["d"]
    worker.run_all()
    assert rows.run(third).status == "completed"


def test_one_run_can_be_run_again_more_than_once(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    old = _failed(controller, worker)
    runs = {controller.rerun_workflow(old) for _ in range(2)}
    assert len(runs) == 2
    worker.run_all()
    assert {rows.run(run_id).status for run_id in runs} == {"completed"}


def test_failures_that_did_not_count_are_tried_again_with_what_was_done_about_them(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """A clean-up, or what is done on failure, is for this time's failure and not for the last one's."""
    old = _enqueue(
        controller,
        step("a"),
        step("b", "a", on_failure="continue"),
        step("on_failure", "b", trigger="any_failed"),
        step("clean_up", "b", trigger="all_settled"),
        step("c", "a clean_up"),
    )
    worker.run("a")
    worker.run_failing("b")
    worker.run("on_failure")
    worker.run("clean_up")
    worker.run_failing("c")
    new = controller.rerun_workflow(old)
    assert worker.queued == ["b"]
    worker.run("b")
    assert rows.states(new)["on_failure"] == "skipped"
    worker.run_all()
    assert rows.run(new).status == "completed"
    assert rows.path(new, "clean_up") == ["pending", "running", "completed"]
    assert rows.step(new, "clean_up").attempt == 1


def test_what_was_skipped_is_decided_about_again(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    old = _enqueue(
        controller, step("a"), step("b", on_failure="continue"), step("c", "b"), step("s", "a", when="input.no")
    )
    worker.run("a")
    worker.run_failing("b")
    assert rows.states(old) == {"a": "completed", "b": "failed", "c": "skipped", "s": "skipped"}
    assert rows.run(old).status == "completed"
    failing = _enqueue(controller, step("b"), step("c", "b"), step("d", when="results.b", after="b"))
    worker.run_failing("b")
    new = controller.rerun_workflow(failing)
    worker.run("b", [])
    assert rows.states(new) == {"b": "completed", "c": "pending", "d": "skipped"}
    worker.run_all()
    assert rows.run(new).status == "completed"


def test_a_gate_that_was_decided_is_not_asked_again_and_an_open_one_is(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    old = _enqueue(controller, *({"key": key, "approval": True} for key in ("g", "h")), step("a"))
    controller.approve_step(old, "g", transitioned_by="ann")
    worker.run_failing("a")
    new = controller.rerun_workflow(old)
    assert rows.states(new) == {"g": "completed", "h": "waiting_approval", "a": "pending"}
    assert rows.step(new, "g").result["by"] == "ann"
    query = select(ApprovalRequest.step_id).where(ApprovalRequest.run_id == new)
    with unchecked_database.reading() as connection:
        assert connection.scalars(query).all() == [rows.step(new, "h").id]
    worker.run_all()
    controller.approve_step(new, "h")
    assert rows.run(new).status == "completed"


def test_a_map_that_was_joined_is_taken_over_as_one_result(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    old = _enqueue(controller, step("l"), step("m", "l", map="results.l"), step("z", "m"))
    worker.run("l", [1, 2])
    worker.run("m.0", 10)
    worker.run("m.1", 20)
    worker.run_failing("z")
    new = controller.rerun_workflow(old)
    assert rows.states(new) == {"l": "completed", "m": "completed", "z": "pending"}
    assert rows.step(new, "m").result == [10, 20]
    worker.run_all()
    assert rows.run(new).status == "completed"


def test_a_map_that_was_half_done_is_expanded_again(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    old = _enqueue(controller, step("l"), step("m", "l", map="results.l"), step("z", "m"))
    worker.run("l", [1, 2])
    worker.run("m.0", 10)
    worker.run_failing("m.1")
    worker.queue.clear()
    new = controller.rerun_workflow(old)
    assert rows.states(new)["m"] == "running"
    for key in list(worker.queued):
        worker.run(key, key)
    assert [item is not None for item in rows.step(new, "m").result] == [True, True]
    worker.run_all()
    assert rows.run(new).status == "completed"


def test_a_rerun_keeps_to_the_limits_of_its_plan(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    old = _enqueue(controller, *steps("a", "b", "c", "d"), head={"max_parallel": 2})
    worker.run("a")
    worker.run_failing("b")
    worker.queue.clear()
    new = controller.rerun_workflow(old)
    assert worker.queued == ["b", "c"]
    worker.run_all()
    assert rows.run(new).status == "completed"


def test_a_condition_that_pauses_a_rerun_at_its_start_leaves_its_counts_right(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    sweeper: Sweeper,
) -> None:
    bad = step("b", "a", when="abs(input.text) > `0`", on_failure="pause")
    old = _enqueue(controller, step("a"), bad, step("c", "a"), input={"text": "x"})
    worker.run("a")
    assert rows.run(old).status == "paused"
    controller.cancel_workflow(old)
    new = controller.rerun_workflow(old)
    assert (rows.run(new).status, rows.run(new).open_steps) == ("paused", 1)
    controller.settle_step(new, "b", None)
    worker.queue.clear()
    controller.resume_workflow(new)
    assert not sweeper.sweep()
    worker.run_all()
    assert rows.run(new).status == "completed"


def test_a_rerun_takes_as_many_statements_for_many_steps_as_for_few(
    controller: WorkflowController,
    worker: WorkerDouble,
    unchecked_database: Database,
) -> None:
    taken = []
    for count in (4, 400):
        keys = [f"s{n}" for n in range(count)]
        old = _enqueue(controller, *steps(*keys))
        worker.run("s0", 1)
        worker.run("s1", 1)
        worker.queue.clear()
        controller.cancel_workflow(old)
        with counted(unchecked_database.engine) as statements:
            controller.rerun_workflow(old)
        taken.append(len(statements))
        worker.queue.clear()
    assert taken[0] == taken[1] <= 40
