"""Mapped steps whose items fail, that wait for an approval, or are paused or cancelled in their middle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import WorkflowController
from interlock.core.attempts.outcomes import Failure
from interlock.core.errors import CommandRefused
from interlock.core.settings import Settings
from tests.core.asking import enqueue
from tests.core.mapped import expanded, mapped, most_at_once
from tests.core.rows import step
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows

pytestmark = pytest.mark.usefixtures("database")


# failing items


@pytest.mark.parametrize("policy", ["fail", "continue", "pause"])
def test_a_failing_item_does_what_the_mapped_step_says_of_failures(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    policy: str,
) -> None:
    run_id = expanded(controller, worker, [1, 2, 3], on_failure=policy)
    worker.run("m.0", 10)
    worker.run_failing("m.1")
    if policy == "fail":
        assert rows.run(run_id).status == "failed"
        assert rows.states(run_id)["m"] == rows.states(run_id)["m.2"] == "cancelled"
        return
    if policy == "pause":
        assert rows.run(run_id).status == "paused"
        assert rows.states(run_id)["m"] == "paused"
        worker.queue.clear()
        controller.resume_workflow(run_id)
    worker.run("m.2", 30)
    assert rows.step(run_id, "m").result == [10, None, 30]
    worker.run_all()
    # The failure was never taken back: with `continue` it does not count, with `pause` it does.
    assert rows.run(run_id).status == ("completed" if policy == "continue" else "failed")


def test_the_only_item_failing_into_a_pause_does_not_keep_the_map_from_ending(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """Nobody counts while paused: the resume has to join it."""
    run_id = expanded(controller, worker, [1], on_failure="pause")
    worker.run_failing("m.0")
    controller.resume_workflow(run_id)
    assert rows.step(run_id, "m").result == [None]
    worker.run_all()
    assert rows.run(run_id).status == "failed"


def test_an_item_is_tried_again_by_the_policy_of_the_mapped_step(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    run_id = expanded(controller, worker, [1, 2], retry={"max_attempts": 2, "initial_delay_s": 60.0})
    worker.run_failing("m.0")
    worker.run("m.1", 20)
    assert rows.states(run_id)["m"] == "running"
    assert not sweeper.sweep()
    rows.make_due(run_id, "m.0", "retry_at")
    assert sweeper.sweep().retried == 1
    worker.run("m.0", 10)
    assert rows.step(run_id, "m").result == [10, 20]
    worker.run_all()


@pytest.mark.parametrize("verb", ["retry", "settle"])
def test_a_failed_item_can_be_tried_again_or_settled_by_hand(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    verb: str,
) -> None:
    run_id = expanded(controller, worker, [1, 2], on_failure="continue")
    worker.run_failing("m.0")
    if verb == "retry":
        controller.retry_step(run_id, "m.0", transitioned_by="ann")
        assert rows.step(run_id, "m").open_deps == 2
        worker.run("m.0", 10)
    else:
        controller.settle_step(run_id, "m.0", 10, "known from elsewhere", transitioned_by="ann")
    worker.run("m.1", 20)
    assert rows.step(run_id, "m").result == [10, 20]
    assert "ann" in {row.transitioned_by for row in rows.history(run_id) if row.step_key == "m.0"}
    worker.run_all()
    assert rows.run(run_id).status == "completed"


@pytest.mark.parametrize("verb", ["retry", "settle"])
def test_what_is_asked_of_an_item_while_paused_is_done_at_resume(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    verb: str,
) -> None:
    run_id = expanded(controller, worker, [1], on_failure="pause")
    worker.run_failing("m.0")
    if verb == "retry":
        controller.retry_step(run_id, "m.0")
    else:
        controller.settle_step(run_id, "m.0", 10)
    controller.resume_workflow(run_id)
    if verb == "retry":
        worker.run("m.0", 10)
    assert rows.step(run_id, "m").result == [10]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_map_over_no_list_can_be_tried_again_and_is_never_sent_itself(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = expanded(controller, worker, "no list", on_failure="continue")
    run_id = enqueue(controller, step("l"), step("o"), mapped(on_failure="continue"))
    worker.run("l", "no list")
    assert rows.states(run_id)["m"] == "failed"
    controller.retry_step(run_id, "m")
    assert worker.queued == ["o"]
    assert rows.states(run_id)["m"] == "failed"
    rows.set_step(run_id, "l", result=[1, 2])  # as if it had been
    controller.retry_step(run_id, "m")
    assert worker.queued == ["m.0", "m.1", "o"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_map_whose_join_failed_is_joined_again_and_its_items_are_not_run_again(
    session: Session,
    unchecked_database: Database,
    rows: Rows,
) -> None:
    small, large = Settings(max_result_bytes=30), Settings()
    worker = WorkerDouble(unchecked_database, small)
    controller = WorkflowController(session, settings=small)
    run_id = enqueue(controller, step("l"), mapped(on_failure="continue"), step("j", "m"), step("o"))
    worker.run("l", [1, 2])
    for n in range(2):
        worker.run(f"m.{n}", "x" * 20)
    assert rows.states(run_id)["m"] == "failed"
    controller.retry_step(run_id, "m")
    assert rows.states(run_id)["m"] == "failed"
    WorkflowController(session, settings=large).retry_step(run_id, "m")
    assert rows.step(run_id, "m").result == ["x" * 20] * 2
    assert worker.queued == ["o"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


# with an approval, with a condition


def test_a_map_with_an_approval_is_expanded_once_it_is_approved(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = expanded(controller, worker, [1, 2], approval=True)
    assert rows.states(run_id) == {"l": "completed", "m": "waiting_approval", "j": "pending"}
    controller.approve_step(run_id, "m")
    assert worker.queued == ["m.0", "m.1"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


@pytest.mark.parametrize("items", [[], "no list"])
def test_an_approved_map_over_nothing_or_no_list_ends_at_once(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    items: object,
) -> None:
    run_id = expanded(controller, worker, items, approval=True)
    controller.approve_step(run_id, "m")
    assert rows.states(run_id)["m"] == ("failed" if items else "completed")
    worker.run_all()


def test_a_map_that_failed_after_its_approval_is_not_asked_about_again(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, step("l"), step("o"), mapped(approval=True, on_failure="continue"))
    worker.run("l", "no list")
    controller.approve_step(run_id, "m")
    rows.set_step(run_id, "l", result=[1])
    controller.retry_step(run_id, "m")
    assert rows.states(run_id)["m"] == "running"
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_map_whose_condition_is_false_is_skipped_and_never_expanded(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = expanded(controller, worker, [1, 2], when="input.yes")
    assert rows.states(run_id) == {"l": "completed", "m": "skipped", "j": "skipped"}
    assert rows.run(run_id).status == "completed"


# paused and cancelled in the middle


@pytest.mark.parametrize("mode", ["interrupt", "drain", "terminate"])
def test_a_map_goes_on_after_a_pause_in_its_middle(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    mode: str,
) -> None:
    run_id = expanded(controller, worker, list(range(5)), max_parallel=3)
    worker.run("m.0", 0)
    worker.claim("m.1")
    worker.claim("m.2")
    controller.pause_workflow(run_id, mode=mode)
    assert rows.states(run_id)["m"] == "paused"
    worker.complete("m.1", 1)
    if mode != "drain":
        worker.fail("m.2", Failure("interrupted", "told to stop"))
    else:
        worker.complete("m.2", 2)
    assert rows.states(run_id)["m.1"] == "paused"
    worker.queue.clear()
    controller.resume_workflow(run_id)
    assert "m" not in worker.queued
    while worker.queue:
        key = worker.queue[0].key
        worker.run(key, int(key[2:]) if key != "j" else None)
    assert rows.step(run_id, "m").result == list(range(5))
    assert rows.run(run_id).status == "completed"
    assert most_at_once(rows.history(run_id), "m.") <= 3


def test_a_map_that_settled_wholly_while_paused_is_joined_at_resume(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = expanded(controller, worker, [1, 2])
    for key in ("m.0", "m.1"):
        worker.claim(key)
    controller.pause_workflow(run_id)
    for key in ("m.0", "m.1"):
        worker.complete(key, key)
    controller.resume_workflow(run_id)
    assert rows.step(run_id, "m").result == ["m.0", "m.1"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_cancelling_in_the_middle_of_a_map_ends_every_item(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = expanded(controller, worker, [1, 2, 3], max_parallel=2)
    worker.run("m.0")
    worker.claim("m.1")
    controller.cancel_workflow(run_id)
    assert rows.states(run_id) == {
        "l": "completed",
        "m": "cancelled",
        "j": "cancelled",
        "m.0": "completed",
        "m.1": "cancelled",
        "m.2": "cancelled",
    }
    assert len(worker.interrupts) == 1


def test_an_item_can_be_paused_by_its_key_but_not_the_mapped_step(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = expanded(controller, worker, [1, 2])
    worker.claim("m.0")
    controller.pause_step(run_id, "m.0", transitioned_by="ann")
    worker.run("m.1", 20)
    assert rows.states(run_id)["m"] == "running"
    with pytest.raises(CommandRefused, match=r"done by its items \(m\.0"):
        controller.pause_step(run_id, "m")
    controller.pause_workflow(run_id)
    with pytest.raises(CommandRefused, match=r"done by its items \(m\.0"):
        controller.pause_step(run_id, "m")  # though it is paused, with the workflow
    worker.complete("m.0", 10)
    controller.resume_workflow(run_id)
    controller.resume_step(run_id, "m.0")
    assert rows.step(run_id, "m").result == [10, 20]
    worker.run_all()
