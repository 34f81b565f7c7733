"""A step over a list that is known only at run time: its items, their fates, and the joined result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from interlock.core import WorkflowController
from interlock.core.errors import CommandRefused
from interlock.core.outcomes import Failure
from interlock.core.settings import Settings
from interlock.signals.dispatch import Dispatcher

from .checker import check
from .rows import counted, step
from .worker_double import WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from interlock.core import Database
    from interlock.core.sweep import Sweeper

    from .rows import Rows

pytestmark = pytest.mark.usefixtures("database")

ITEM = [{"$expr": "item"}]


def _mapped(key: str = "m", over: str = "results.l", **options: Any) -> dict[str, Any]:
    """A step over the result of `l`, in at most `max_parallel` at once."""
    most = options.pop("max_parallel", None)
    return step(key, options.pop("after", "l"), map={"over": over, "max_parallel": most}, args=ITEM, **options)


def _enqueue(controller: WorkflowController, *plan: dict[str, Any], **head: object) -> str:
    return controller.enqueue_workflow({"steps": list(plan), "task_description": "x", **head})


def _expanded(controller: WorkflowController, worker: WorkerDouble, items: object, **options: Any) -> str:
    """A run whose list step has given `items` to the mapped step m, for which j waits."""
    run_id = _enqueue(controller, step("l"), _mapped(**options), step("j", "m"))
    worker.run("l", items)
    return run_id


def most_at_once(history: Sequence[Row[Any]], prefix: str = "") -> int:
    """How many steps whose key begins so were running at once."""
    running: set[str] = set()
    most = 0
    for row in history:
        if row.step_key is not None and row.step_key.startswith(prefix):
            (running.add if row.to_state == "running" else running.discard)(row.step_key)
            most = max(most, len(running))
    return most


# items and their order


def test_items_become_steps_of_their_own_whose_results_are_joined_in_their_order(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _expanded(controller, worker, ["a", "b", "c"])
    assert rows.states(run_id) == {
        "l": "completed",
        "m": "running",
        "j": "pending",
        "m.0": "pending",
        "m.1": "pending",
        "m.2": "pending",
    }
    for key, result in (("m.2", "C"), ("m.0", {"deep": ["A"]}), ("m.1", None)):
        assert rows.states(run_id)["j"] == "pending"
        worker.run(key, result)
    assert rows.step(run_id, "m").result == [{"deep": ["A"]}, None, "C"]
    assert worker.queued == ["j"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_items_enter_the_history_as_pending_and_the_mapped_step_runs_from_first_to_last(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _expanded(controller, worker, [1, 2])
    worker.run_all()
    first = next(row for row in rows.history(run_id) if row.step_key == "m.1")
    assert (first.from_state, first.to_state) == (None, "pending")
    assert rows.path(run_id, "m.1") == ["pending", "running", "completed"]
    assert rows.path(run_id, "m") == ["pending", "running", "completed"]
    order = [row.step_key for row in rows.history(run_id) if row.to_state == "completed" and row.step_key]
    assert order == ["l", "m.0", "m.1", "m", "j"]


def test_more_than_ten_items_are_joined_by_number_and_not_by_name(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _expanded(controller, worker, list(range(23)))
    for n in reversed(range(23)):
        worker.run(f"m.{n}", n * n)
    assert rows.step(run_id, "m").result == [n * n for n in range(23)]


def test_an_empty_list_completes_at_once(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = _expanded(controller, worker, [])
    assert (rows.states(run_id)["m"], rows.step(run_id, "m").result) == ("completed", [])
    assert worker.queued == ["j"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_empty_lists_that_follow_one_another_complete_in_one_transaction(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("l"), _mapped("m"), _mapped("n", "results.m", after="m"))
    worker.run("l", [])
    assert rows.run(run_id).status == "completed"


def test_each_item_gets_its_item_and_index_as_arguments(
    controller: WorkflowController,
    worker: WorkerDouble,
    unchecked_database: Database,
    settings: Settings,
) -> None:
    """With input and earlier results beside them; an item that looks like an expression stays text."""
    arguments = Dispatcher(Celery("test"), unchecked_database, settings)._arguments
    kwargs = {"n": {"$expr": "index"}, "unit": {"$expr": "input.unit"}, "all": {"$expr": "results"}}
    controller.enqueue_workflow(
        [step("l"), _mapped(kwargs=kwargs)],
        task_description="x",
        input={"unit": "kg"},
    )
    items = [{"id": 7, "parts": [1, [2]]}, "input.unit", None]
    worker.run("l", items)
    worker.run("m.0", "done")  # what a sibling has come to is not seen: it would depend on timing
    for dispatch in worker.queue:
        index = int(dispatch.key.rpartition(".")[2])
        assert arguments(dispatch) == ([items[index]], {"n": index, "unit": "kg", "all": {"l": items}})
    worker.run_all()


def test_those_behind_a_map_see_the_joined_list_and_not_the_items(
    controller: WorkflowController,
    worker: WorkerDouble,
    unchecked_database: Database,
    settings: Settings,
) -> None:
    _enqueue(controller, step("l"), _mapped(), step("j", "m", args=[{"$expr": "results.m"}, {"$expr": "results"}]))
    worker.run("l", [1, 2])
    worker.run("m.0", 10)
    worker.run("m.1", 20)
    (dispatch,) = worker.queue
    found = Dispatcher(Celery("test"), unchecked_database, settings)._arguments(dispatch)
    assert found == ([[10, 20], {"l": [1, 2], "m": [10, 20]}], {})
    worker.run_all()


def test_items_inherit_how_the_task_is_sent_and_not_what_was_the_mapped_steps_own_business(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _expanded(controller, worker, [1], queue="slow", timeout_s=9, when="results.l")
    spec = rows.step(run_id, "m.0").spec
    assert (spec["queue"], spec["timeout_s"]) == ("slow", 9)
    assert not {"map", "when", "approval", "trigger"} & set(spec)
    assert rows.step(run_id, "m.0").task == "tasks.m"
    worker.run_all()


# lists that are none


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "not nothing"),
        ({"a": 1}, "not dict"),
        ("abc", "not str"),
        (3, "not int"),
    ],
)
def test_what_is_no_list_fails_the_step(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    result: object,
    message: str,
) -> None:
    run_id = _expanded(controller, worker, result)
    assert rows.states(run_id) == {"l": "completed", "m": "failed", "j": "cancelled"}
    assert message in rows.run(run_id).error
    assert rows.path(run_id, "m") == ["pending", "running", "failed"]


def test_more_items_than_a_run_may_have_steps_fail_the_step(
    session: Session,
    unchecked_database: Database,
    rows: Rows,
) -> None:
    limits = Settings(max_steps=10)
    controller, worker = WorkflowController(session, settings=limits), WorkerDouble(unchecked_database, limits)
    run_id = _expanded(controller, worker, list(range(8)))
    assert rows.run(run_id).status == "failed"
    assert "8 items, which with the 3 steps there are is over 10" in rows.run(run_id).error
    run_id = _expanded(controller, worker, list(range(7)))
    assert len(rows.states(run_id)) == 10
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_a_joined_list_over_the_limit_of_a_result_fails_the_step(
    session: Session,
    unchecked_database: Database,
    rows: Rows,
) -> None:
    limits = Settings(max_result_bytes=100)
    controller, worker = WorkflowController(session, settings=limits), WorkerDouble(unchecked_database, limits)
    run_id = _expanded(controller, worker, [1, 2, 3])
    for n in range(3):
        worker.run(f"m.{n}", "x" * 40)
    assert rows.run(run_id).status == "failed"
    assert "over the limit of 100" in rows.step(run_id, "m").error
    assert rows.states(run_id)["j"] == "cancelled"


def test_of_two_lists_that_cannot_be_joined_the_first_pauses_the_run_and_the_second_waits(
    session: Session,
    unchecked_database: Database,
    rows: Rows,
) -> None:
    """Both fall due in one resume, because their items had failed into a pause."""
    limits = Settings(max_result_bytes=5)
    controller, worker = WorkflowController(session, settings=limits), WorkerDouble(unchecked_database, limits)
    over = {"over": "[`1`]", "after": "", "on_failure": "pause"}
    run_id = _enqueue(controller, _mapped("m", **over), _mapped("n", **over))
    worker.claim("m.0")
    worker.claim("n.0")
    worker.fail("m.0")
    worker.fail("n.0")
    controller.resume_workflow(run_id)  # n.0's failure came during the pause, and pauses again
    assert rows.states(run_id) == {"m": "paused", "n": "paused", "m.0": "failed", "n.0": "failed"}
    controller.resume_workflow(run_id)
    assert rows.states(run_id) == {"m": "failed", "n": "paused", "m.0": "failed", "n.0": "failed"}
    check(unchecked_database)
    controller.resume_workflow(run_id)
    assert rows.states(run_id) == {"m": "failed", "n": "failed", "m.0": "failed", "n.0": "failed"}
    controller.resume_workflow(run_id)
    assert rows.run(run_id).status == "failed"


# failing items


@pytest.mark.parametrize("policy", ["fail", "continue", "pause"])
def test_a_failing_item_does_what_the_mapped_step_says_of_failures(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    policy: str,
) -> None:
    run_id = _expanded(controller, worker, [1, 2, 3], on_failure=policy)
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
    run_id = _expanded(controller, worker, [1], on_failure="pause")
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
    run_id = _expanded(controller, worker, [1, 2], retry={"max_attempts": 2, "initial_delay_s": 60.0})
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
    run_id = _expanded(controller, worker, [1, 2], on_failure="continue")
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
    run_id = _expanded(controller, worker, [1], on_failure="pause")
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
    run_id = _expanded(controller, worker, "no list", on_failure="continue")
    run_id = _enqueue(controller, step("l"), step("o"), _mapped(on_failure="continue"))
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
    run_id = _enqueue(controller, step("l"), _mapped(on_failure="continue"), step("j", "m"), step("o"))
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
    run_id = _expanded(controller, worker, [1, 2], approval=True)
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
    run_id = _expanded(controller, worker, items, approval=True)
    controller.approve_step(run_id, "m")
    assert rows.states(run_id)["m"] == ("failed" if items else "completed")
    worker.run_all()


def test_a_map_that_failed_after_its_approval_is_not_asked_about_again(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, step("l"), step("o"), _mapped(approval=True, on_failure="continue"))
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
    run_id = _expanded(controller, worker, [1, 2], when="input.yes")
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
    run_id = _expanded(controller, worker, list(range(5)), max_parallel=3)
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
    run_id = _expanded(controller, worker, [1, 2])
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
    run_id = _expanded(controller, worker, [1, 2, 3], max_parallel=2)
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
    run_id = _expanded(controller, worker, [1, 2])
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


# many


def test_a_map_of_a_thousand_items_takes_a_constant_number_of_statements(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    """As many to expand as for two, and as many for an item that settles, also under a limit."""
    taken = []
    for count in (20, 1_000):
        run_id = _enqueue(controller, step("l"), _mapped(max_parallel=10))
        worker.claim("l")
        with counted(unchecked_database.engine) as expanding:
            worker.complete("l", list(range(count)))
        worker.claim("m.3")
        with counted(unchecked_database.engine) as settling:
            worker.complete("m.3", 3)
        taken.append((len(expanding), len(settling)))
        assert len(rows.states(run_id)) == count + 2
        assert len(worker.queue) == 10
        worker.queue.clear()
        controller.cancel_workflow(run_id)
    assert taken[0] == taken[1]
    assert taken[0][0] <= 30
    assert taken[0][1] <= 14


def test_a_thousand_items_ten_at_once_are_joined_in_their_order(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    request: pytest.FixtureRequest,
) -> None:
    if "postgresql" in request.node.name:
        pytest.skip("the same statements on both; once is enough for so many")
    run_id = _expanded(controller, worker, list(range(1_000)), max_parallel=10)
    while worker.queue:
        for dispatch in list(worker.queue):
            worker.claim(dispatch.key)
        for key in sorted(worker.held, reverse=True):
            worker.complete(key, int(key[2:]) if key != "j" else None)
    assert rows.step(run_id, "m").result == list(range(1_000))
    assert most_at_once(rows.history(run_id), "m.") == 10
    assert rows.run(run_id).status == "completed"
