"""Limits on how many steps are in work at once: never exceeded, and nothing that waits for a slot is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock.core.attempts.outcomes import Failure
from interlock.core.attempts.step_calls import StepCalls
from interlock.core.queries.explain import explain
from tests.core.rows import counted, step, steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from interlock.core.settings import Settings
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")

SLOW = {"max_attempts": 2, "initial_delay_s": 60.0}


def _enqueue(controller: WorkflowController, limit: int | None, *plan: dict[str, Any], **more: object) -> str:
    document = {"steps": list(plan), "task_description": "x", "max_parallel": limit}
    return controller.enqueue_workflow(document, **more)


def _gate(key: str, after: str = "", **approval: object) -> dict[str, Any]:
    return {"key": key, "after": after.split(), "approval": approval or True}


def _over(key: str, items: str, after: str = "", **options: Any) -> dict[str, Any]:
    most = options.pop("most", None)
    return step(key, after, map={"over": items, "max_parallel": most}, **options)


# slots


def test_what_is_ready_beyond_the_limit_starts_when_others_settle(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, 2, *steps("a", "b", "c", "d"), step("z", "a b c d"))
    assert worker.queued == ["a", "b"]
    worker.run("b")
    assert worker.queued == ["a", "c"]
    worker.claim("a")
    assert worker.queued == ["c"]
    worker.complete("a")
    assert worker.queued == ["c", "d"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_dependents_take_their_turn_in_the_order_of_the_plan(
    controller: WorkflowController,
    worker: WorkerDouble,
) -> None:
    _enqueue(controller, 1, step("a"), step("b", "a"), step("c"), step("d", "c"))
    order = []
    while worker.queue:
        assert len(worker.queue) == 1
        order.append(worker.queue[0].key)
        worker.run(order[-1])
    assert order == ["a", "b", "c", "d"]


@pytest.mark.parametrize("end", ["skip", "fail", "cancel"])
def test_a_step_that_ends_in_any_other_way_gives_its_slot_back(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    end: str,
) -> None:
    options: dict[str, Any] = {"when": "input.no"} if end == "skip" else {"on_failure": "continue"}
    run_id = _enqueue(controller, 1, step("a", **options), step("b"))
    if end == "fail":
        worker.run_failing("a")
    elif end == "cancel":
        worker.attempts.fail(worker.claim("a"), Failure("unusable", "its message is no use"))
    assert worker.queued == ["b"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


@pytest.mark.long
def test_a_thousand_steps_that_are_not_wanted_pass_through_one_slot(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """They settle one after the other in one transaction, which must not nest."""
    run_id = _enqueue(controller, 1, *steps(*(f"s{n}" for n in range(1_000)), when="input.no"), step("z"))
    assert worker.queued == ["z"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_gates_and_mapped_steps_take_no_slot(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, 1, _gate("g"), _over("m", "input"), step("a"), input=[1, 2])
    assert rows.states(run_id)["g"] == "waiting_approval"
    assert rows.states(run_id)["m"] == "running"
    assert worker.queued == ["a"]
    worker.run_all()
    assert rows.run(run_id).status == "waiting_approval"
    controller.approve_step(run_id, "g")
    assert rows.run(run_id).status == "completed"


def test_the_items_of_a_map_share_the_slots_of_the_run(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, 3, _over("m", "input", most=2), step("a"), step("b"), input=list(range(4)))
    assert worker.queued == ["a", "b", "m.0"]
    worker.run("a")
    assert worker.queued == ["b", "m.0", "m.1"]
    worker.run("b")
    assert worker.queued == ["m.0", "m.1"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_long_list_that_uses_its_own_limit_hides_no_other_that_could_start(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """More items wait for a slot among their siblings than are looked at in one go."""
    run_id = _enqueue(
        controller,
        2,
        _over("m", "input", most=1),
        step("a"),
        _over("n", "input", "a", most=1),
        input=list(range(150)),
    )
    assert worker.queued == ["a", "m.0"]
    worker.run("a")
    assert worker.queued == ["m.0", "n.0"]
    worker.run("n.0")
    assert worker.queued == ["m.0", "n.1"]
    controller.cancel_workflow(run_id)
    assert rows.run(run_id).status == "cancelled"


# what holds its slot


def test_a_retry_that_is_coming_holds_its_slot(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, 2, step("a", retry=SLOW), *steps("b", "c", "d"))
    worker.run_failing("a")
    worker.run("b")
    assert worker.queued == ["c"]
    rows.make_due(run_id, "a", "retry_at")
    assert sweeper.sweep().retried == 1
    assert worker.queued == ["a", "c"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_paused_step_holds_its_slot(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    """Its body may still run, and at resume it goes on at once."""
    run_id = _enqueue(controller, 2, *steps("a", "b", "c", "d"))
    worker.claim("a")
    controller.pause_step(run_id, "a")
    worker.run("b")
    assert worker.queued == ["c"]
    worker.fail("a", Failure("interrupted", "told to stop"))
    controller.resume_step(run_id, "a")
    assert worker.queued == ["a", "c"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_pause_of_the_workflow_changes_nothing_about_slots(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, 2, *steps("a", "b", "c", "d"))
    worker.claim("a")
    controller.pause_workflow(run_id)
    worker.complete("a")
    worker.queue.clear()
    controller.resume_workflow(run_id)
    assert worker.queued == ["b", "c"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


# people and slots


def test_an_approved_task_starts_when_there_is_a_slot(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, 1, step("g", approval=True), *steps("a", "b"))
    worker.claim("a")
    controller.approve_step(run_id, "g", transitioned_by="ann")
    assert (worker.queued, rows.states(run_id)["g"]) == ([], "waiting_approval")
    worker.complete("a")
    assert worker.queued == ["g"]  # before b, which nobody has asked for
    moved = [row for row in rows.history(run_id) if row.step_key == "g"][-1]
    assert (moved.to_state, moved.transitioned_by) == ("running", "ann")
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_an_approval_over_a_limit_that_was_made_while_paused_waits_for_its_slot_too(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, 1, step("g", approval=True), *steps("a"))
    worker.claim("a")
    controller.pause_workflow(run_id)
    controller.approve_step(run_id, "g")
    worker.fail("a", Failure("interrupted", "told to stop"))
    controller.resume_workflow(run_id)
    assert worker.queued == ["a"]
    worker.run_all()
    assert rows.path(run_id, "g")[-2:] == ["running", "completed"]
    assert rows.run(run_id).status == "completed"


def test_a_decision_that_starts_nothing_needs_no_slot(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(
        controller,
        1,
        step("a"),
        _gate("g"),
        step("h", approval={"on_reject": "continue"}),
        _over("m", "input", approval=True),
        input=[],
    )
    controller.approve_step(run_id, "g")
    controller.reject_step(run_id, "h")
    controller.approve_step(run_id, "m")
    assert rows.states(run_id) == {"a": "pending", "g": "completed", "h": "completed", "m": "completed"}
    worker.run_all()


def test_a_body_that_asks_gives_its_slot_back_and_gets_one_when_it_is_answered(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
    settings: Settings,
) -> None:
    calls = StepCalls(unchecked_database, settings)
    run_id = _enqueue(controller, 1, *steps("a", "b", "c"))
    assert calls.ask(worker.claim("a"), {"name": "q"})
    assert rows.run(run_id).status == "executing"
    assert worker.queued == ["b"]
    controller.approve_step(run_id, "a")
    assert worker.queued == ["b"]
    worker.run("b")
    assert worker.queued == ["a"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_an_item_that_asks_gives_its_slot_to_a_sibling(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
    settings: Settings,
) -> None:
    calls = StepCalls(unchecked_database, settings)
    run_id = _enqueue(controller, None, _over("m", "input", most=1), input=[1, 2, 3])
    assert calls.ask(worker.claim("m.0"), {"name": "q"})
    assert worker.queued == ["m.1"]
    controller.approve_step(run_id, "m.0")
    worker.run("m.1")
    assert worker.queued == ["m.0"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_retry_by_hand_waits_for_a_slot(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, 1, step("a", on_failure="continue"), *steps("b", "c"))
    worker.run_failing("a")
    worker.claim("b")
    controller.retry_step(run_id, "a")
    assert (worker.queued, sweeper.sweep().retried) == ([], 0)
    assert rows.step(run_id, "a").retry_at is not None
    worker.complete("b")
    assert worker.queued == []  # the slot is a's
    assert sweeper.sweep().retried == 1
    assert worker.queued == ["a"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_of_two_retries_asked_for_while_paused_the_first_has_the_slot_at_the_resume(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, 1, *steps("a", "b", on_failure="pause"))
    worker.run_failing("a")
    controller.resume_workflow(run_id)
    worker.run_failing("b")
    for key in "ab":
        controller.retry_step(run_id, key)
    controller.resume_workflow(run_id)
    assert worker.queued == ["a"]
    worker.run("a")
    sweeper.sweep()
    worker.run("b")
    assert rows.run(run_id).status == "completed"


def test_of_two_that_follow_a_failure_the_second_takes_the_slot_of_the_first_while_another_is_open(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    """`any_failed` holds with the first failure: what else they wait for may be open for days."""
    undoing = [step(key, "a g", trigger="any_failed") for key in ("undo1", "undo2")]
    run_id = _enqueue(controller, 1, step("a", on_failure="continue"), _gate("g"), *undoing)
    worker.run_failing("a")
    assert worker.queued == ["undo1"]
    with unchecked_database.reading() as connection:
        told = {reason["step"]: reason["kind"] for reason in explain(connection, run_id, "default")["reasons"]}
    assert told["undo2"] == "parallel_limit"
    worker.run("undo1")
    assert worker.queued == ["undo2"]
    worker.run("undo2")
    assert rows.run(run_id).status == "waiting_approval"
    controller.reject_step(run_id, "g")
    assert rows.states(run_id)["undo2"] == "completed"


# what it costs


def test_an_item_that_settles_takes_few_statements_however_many_wait(
    controller: WorkflowController,
    worker: WorkerDouble,
    unchecked_database: Database,
) -> None:
    taken = []
    for count in (20, 1_000):
        run_id = _enqueue(controller, 10, *steps(*(f"s{n}" for n in range(count))))
        worker.claim("s3")
        with counted(unchecked_database.engine) as statements:
            worker.complete("s3")
        taken.append(len(statements))
        assert len(worker.queue) == 10
        worker.queue.clear()
        controller.cancel_workflow(run_id)
    assert taken[0] == taken[1] <= 14
