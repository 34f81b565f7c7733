"""Messages sent again: those that are due, and those that neither the broker nor a worker has any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from interlock.core import WorkflowController
from interlock.core.database.tables import WorkflowStep
from interlock.core.database.types import clock, seconds_after, seconds_between
from interlock.core.settings import Settings
from interlock.core.sweeper.redispatch import QUIET_S, Redispatcher, Unclaimed
from interlock.core.sweeper.sweeper import Sweeper, SweepResult
from tests.core.rows import Rows, counted, step, steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from interlock.core import Database
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")

KEYS = [f"s{number:02}" for number in range(25)]


class Broker:
    """Answers for the broker and the workers: it has what `kept` names, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.kept: set[str] = set()
        self.asked: list[list[Unclaimed]] = []

    def __call__(self, unclaimed: Sequence[Unclaimed]) -> set[str]:
        self.asked.append(list(unclaimed))
        return {each.task_id for each in unclaimed} - self.kept


@pytest.fixture
def broker() -> Broker:
    """A broker that has lost everything."""
    return Broker()


def _enqueue(controller: WorkflowController, *keys: str, **options: object) -> str:
    return controller.enqueue_workflow(steps(*keys, **options), task_description="x")


def _sent_ago(rows: Rows, run_id: str, key: str, seconds: float, interval_s: float = 30) -> None:
    """Have it be so long since the last message of a step."""
    rows.set_step(run_id, key, dispatch_check_at=seconds_after(interval_s - seconds))


def _make_due(rows: Rows, run_id: str, keys: Sequence[str] = KEYS) -> None:
    for key in keys:
        rows.make_due(run_id, key, "dispatch_check_at")


def test_a_batch_is_one_statement_set_whatever_its_size(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, unchecked_database: Database
) -> None:
    """F32: is anything due; the allowance; the rows; the payment. The first one ever makes the allowance's row as well."""
    run_id = _enqueue(controller, *KEYS)
    redispatcher = Redispatcher(unchecked_database, Settings())
    assert redispatcher.send_due() == 0
    _make_due(rows, run_id, KEYS[:1])
    assert redispatcher.send_due() == 1
    counts = []
    for keys in (KEYS[:2], KEYS):
        _make_due(rows, run_id, keys)
        worker.queue.clear()
        with counted(unchecked_database.engine) as statements:
            assert redispatcher.send_due() == len(keys)
        counts.append(len([text for text in statements if not text.startswith("BEGIN")]))
        assert sorted(worker.queued) == sorted(keys)
    assert counts == [4, 4]


def test_a_lost_message_is_sent_again_with_its_id_at_doubling_intervals(
    unchecked_database: Database,
    session: Session,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    settings = Settings(redispatch_s=30, redispatch_max_s=200)
    run_id = WorkflowController(session, settings=settings).enqueue_workflow(steps("a"), task_description="x")
    sweeper = Sweeper(unchecked_database, settings)
    task_id = worker.queue[0].task_id
    for dispatches, wait_s in ((1, 30), (2, 60), (3, 120), (4, 200), (5, 200)):
        row = rows.step(run_id, "a")
        assert row.dispatches == dispatches
        assert _seconds_until(unchecked_database, "a") == pytest.approx(wait_s, abs=1)
        assert not sweeper.sweep()
        worker.queue.clear()
        rows.make_due(run_id, "a", "dispatch_check_at")
        assert sweeper.sweep() == SweepResult(redispatched=1)
        assert [(sent.task_id, sent.attempt) for sent in worker.queue] == [(task_id, 1)]
    worker.run("a", 1)
    assert rows.path(run_id, "a") == ["pending", "running", "completed"]


def _seconds_until(database: Database, key: str) -> float:
    query = select(seconds_between(clock(), WorkflowStep.dispatch_check_at)).where(WorkflowStep.key == key)
    with database.reading() as connection:
        return float(connection.scalar(query) or 0)


def test_a_message_sent_twice_runs_once(
    controller: WorkflowController,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, "a")
    rows.make_due(run_id, "a", "dispatch_check_at")
    sweeper.sweep()
    assert worker.queued == ["a", "a"]
    worker.claim("a")
    assert not worker.offer("a", "worker@2")[1].granted


def test_a_retry_whose_message_is_lost_is_sent_again(
    controller: WorkflowController,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, "a", retry={"max_attempts": 2, "initial_delay_s": 0.0})
    worker.run_failing("a")
    second = worker.queue.pop()
    rows.make_due(run_id, "a", "dispatch_check_at")
    assert sweeper.sweep().redispatched == 1
    assert worker.queue == [second]


# messages that are nowhere


def test_what_neither_the_broker_nor_a_worker_has_is_sent_again_with_its_id_before_it_is_due(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, unchecked_database: Database, broker: Broker
) -> None:
    """F10: all messages are lost; one is only waiting in a worker."""
    run_id = controller.enqueue_workflow([*steps("a", "b", "c"), step("named", queue="slow")], task_description="x")
    sweeper = Sweeper(unchecked_database, Settings(), broker)
    ids = {key: rows.step(run_id, key).task_id for key in ("a", "b", "c", "named")}
    worker.claim("c")
    worker.queue.clear()
    assert not sweeper.sweep(), "they may still be on their way"
    assert broker.asked == []
    for key in ("a", "b", "named"):
        _sent_ago(rows, run_id, key, QUIET_S + 1)
    broker.kept = {ids["a"]}
    assert sweeper.sweep() == SweepResult(missing=2)
    assert sorted(broker.asked[0], key=lambda each: each.task_id) == sorted(
        (Unclaimed(ids[key], 1, f"tasks.{key}", queue) for key, queue in (("a", None), ("b", None), ("named", "slow"))),
        key=lambda each: each.task_id,
    )
    assert sorted(dispatch.task_id for dispatch in worker.queue) == sorted([ids["b"], ids["named"]])
    assert rows.step(run_id, "b").attempt == 1


def test_what_is_missed_again_and_again_is_sent_ever_more_rarely(
    controller: WorkflowController, rows: Rows, unchecked_database: Database, broker: Broker
) -> None:
    """Whatever the broker answers: duplicates are harmless, and must not snowball."""
    run_id = _enqueue(controller, "a")
    sweeper = Sweeper(unchecked_database, Settings(), broker)
    for dispatches in range(1, 10):
        interval_s, quiet_s = min(30 * 2 ** (dispatches - 1), 600), QUIET_S * 2 ** (dispatches - 1)
        assert rows.step(run_id, "a").dispatches == dispatches
        _sent_ago(rows, run_id, "a", quiet_s / 4, interval_s)
        assert not sweeper.sweep()
        _sent_ago(rows, run_id, "a", quiet_s + 0.1, interval_s)
        swept = sweeper.sweep()
        assert swept.missing + swept.redispatched == 1
    assert rows.step(run_id, "a").attempt == 1


@pytest.mark.parametrize("option", ["exchange", "routing_key"])
def test_a_message_whose_queue_only_the_broker_knows_is_not_asked_for(
    controller: WorkflowController, rows: Rows, unchecked_database: Database, broker: Broker, option: str
) -> None:
    run_id = controller.enqueue_workflow([step("a", options={option: "x"})], task_description="x")
    _sent_ago(rows, run_id, "a", 10)
    assert not Sweeper(unchecked_database, Settings(), broker).sweep()
    assert broker.asked == []


def test_nobody_is_asked_for_what_waits_for_something_else_than_a_worker(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, unchecked_database: Database, broker: Broker
) -> None:
    """Of a paused run, and an attempt whose predecessor still runs: its message was never sent."""
    paused = _enqueue(controller, "a")
    rows.set_step(paused, "a", dispatch_check_at=seconds_after(20))
    controller.pause_workflow(paused)
    draining = _enqueue(controller, "b")
    worker.claim("b")
    controller.pause_workflow(draining)
    controller.resume_workflow(draining)
    sweeper = Sweeper(unchecked_database, Settings(), broker)
    assert not sweeper.sweep()
    assert broker.asked == []


def test_an_answer_that_is_old_when_it_comes_sends_nothing(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, unchecked_database: Database
) -> None:
    """F29: claimed, or sent by another sweeper, between the question and the answer."""
    run_id = _enqueue(controller, "claimed", "sent")
    for key in ("claimed", "sent"):
        _sent_ago(rows, run_id, key, 10)
    held = list(worker.queue)

    def slow(unclaimed: Sequence[Unclaimed]) -> set[str]:
        worker.claim("claimed")
        rows.set_step(run_id, "sent", dispatches=2, dispatch_check_at=seconds_after(60))
        return {each.task_id for each in unclaimed}

    assert not Sweeper(unchecked_database, Settings(), slow).sweep()
    assert worker.queue == [message for message in held if message.key != "claimed"]
