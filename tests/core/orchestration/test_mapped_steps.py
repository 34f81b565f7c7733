"""A step over a list that is known only at run time: its items, their fates, and the joined result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery import Celery

from interlock.core import WorkflowController
from interlock.core.settings import Settings
from interlock.signals.dispatch.dispatcher import Dispatcher
from tests.core.asking import enqueue
from tests.core.checker import check
from tests.core.mapped import expanded, mapped, most_at_once
from tests.core.rows import counted, step
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database
    from tests.core.rows import Rows

pytestmark = pytest.mark.usefixtures("database")


# items and their order


def test_items_become_steps_of_their_own_whose_results_are_joined_in_their_order(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = expanded(controller, worker, ["a", "b", "c"])
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
    run_id = expanded(controller, worker, [1, 2])
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
    run_id = expanded(controller, worker, list(range(23)))
    for n in reversed(range(23)):
        worker.run(f"m.{n}", n * n)
    assert rows.step(run_id, "m").result == [n * n for n in range(23)]


def test_an_empty_list_completes_at_once(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = expanded(controller, worker, [])
    assert (rows.states(run_id)["m"], rows.step(run_id, "m").result) == ("completed", [])
    assert worker.queued == ["j"]
    worker.run_all()
    assert rows.run(run_id).status == "completed"


def test_empty_lists_that_follow_one_another_complete_in_one_transaction(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = enqueue(controller, step("l"), mapped("m"), mapped("n", "results.m", after="m"))
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
        [step("l"), mapped(kwargs=kwargs)],
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


def test_items_inherit_how_the_task_is_sent_and_not_what_was_the_mapped_steps_own_business(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = expanded(controller, worker, [1], queue="slow", timeout_s=9, when="results.l")
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
    run_id = expanded(controller, worker, result)
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
    run_id = expanded(controller, worker, list(range(8)))
    assert rows.run(run_id).status == "failed"
    assert "8 items, which with the 3 steps there are is over 10" in rows.run(run_id).error
    run_id = expanded(controller, worker, list(range(7)))
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
    run_id = expanded(controller, worker, [1, 2, 3])
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
    run_id = enqueue(controller, mapped("m", **over), mapped("n", **over))
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
        run_id = enqueue(controller, step("l"), mapped(max_parallel=10))
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


@pytest.mark.long
def test_a_thousand_items_ten_at_once_are_joined_in_their_order(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    request: pytest.FixtureRequest,
) -> None:
    if "postgresql" in request.node.name:
        pytest.skip("the same statements on both; once is enough for so many")
    run_id = expanded(controller, worker, list(range(1_000)), max_parallel=10)
    while worker.queue:
        for dispatch in list(worker.queue):
            worker.claim(dispatch.key)
        for key in sorted(worker.held, reverse=True):
            worker.complete(key, int(key[2:]) if key != "j" else None)
    assert rows.step(run_id, "m").result == list(range(1_000))
    assert most_at_once(rows.history(run_id), "m.") == 10
    assert rows.run(run_id).status == "completed"
