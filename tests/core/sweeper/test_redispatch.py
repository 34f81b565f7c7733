"""Messages sent again: those that are due, those that nobody has any more, and one pace for all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, select, update

from interlock.core import WorkflowController, open_database
from interlock.core.database.tables import ControlCommand
from interlock.core.database.types import seconds_after
from interlock.core.fault_points import FaultInjected, FaultRule, injected
from interlock.core.settings import Settings
from interlock.core.sweeper.redispatch import QUIET_S, Redispatcher, Unclaimed
from interlock.core.sweeper.redispatch_rate import Pace
from interlock.core.sweeper.sweeper import Sweeper, Swept
from interlock.signals.control.command import parse_command
from interlock.signals.control.handler import CommandHandler
from tests.core.rows import Rows, counted, step, steps
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from interlock.core import Database

pytestmark = pytest.mark.usefixtures("database")

_commands = ControlCommand.__table__
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
    assert sweeper.sweep() == Swept(missing=2)
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


# one pace for all


def _pass_time(database: Database, seconds: float) -> None:
    """Have the allowance be so much older."""
    query = select(_commands.c.created_at).where(_commands.c.session_id == "*")
    with database.engine.begin() as connection:
        paid_until = connection.scalar(query)
        back = update(_commands).where(_commands.c.session_id == "*")
        connection.execute(back.values(created_at=seconds_after(-seconds, paid_until)))


def test_a_sweep_sends_no_more_again_than_the_pace_allows(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, unchecked_database: Database
) -> None:
    run_id = _enqueue(controller, *KEYS)
    _make_due(rows, run_id)
    worker.queue.clear()
    sweeper = Sweeper(unchecked_database, Settings(redispatch_rate=0.2, sweep_s=50))
    assert sweeper.sweep(batch=4).redispatched == 10
    assert len(worker.queue) == 10


def test_all_processes_draw_on_one_allowance_which_grows_with_time(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, core_url: str, unchecked_database: Database
) -> None:
    """F32: three sweepers and the hint of a client, one after the other, and none of them gets more than there is."""
    run_id = _enqueue(controller, *KEYS)
    _make_due(rows, run_id)
    settings = Settings(redispatch_rate=0.2, sweep_s=50)  # ten at once, and one every five seconds
    databases = [open_database(core_url) for _ in range(3)]
    doubles = [WorkerDouble(database, settings) for database in databases]
    sweepers = [Sweeper(database, settings) for database in databases]
    hint = parse_command({"id": "hint", "command": "dispatch"})
    handler = CommandHandler(unchecked_database, settings, None)
    worker.queue.clear()
    assert [sweeper.sweep(batch=4).redispatched for sweeper in sweepers] == [10, 0, 0]
    assert handler.handle(hint)["ok"]
    assert worker.queue == []
    _pass_time(unchecked_database, 15)
    assert handler.handle(hint)["ok"]
    assert len(worker.queue) == 3
    assert [sweeper.sweep().redispatched for sweeper in sweepers] == [0, 0, 0]
    _pass_time(unchecked_database, 1000)
    assert [sweeper.sweep().redispatched for sweeper in sweepers[::-1]] == [10, 0, 0]
    sent = [dispatch.key for double in doubles for dispatch in double.queue] + worker.queued
    assert len(sent) == len(set(sent)) == 23
    for database in databases:
        database.dispose()


def test_an_allowance_that_was_drawn_by_a_process_that_died_is_there_again(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, unchecked_database: Database, tmp_path: Path
) -> None:
    run_id = _enqueue(controller, *KEYS)
    _make_due(rows, run_id)
    worker.queue.clear()
    redispatcher = Redispatcher(unchecked_database, Settings(redispatch_rate=0.2, sweep_s=50))
    with injected(tmp_path, FaultRule(place="redispatch.commit", action="raise")), pytest.raises(FaultInjected):
        redispatcher.send_due()
    assert worker.queue == []
    assert redispatcher.send_due() == 10


def test_a_database_clock_that_was_set_back_stops_nothing(
    controller: WorkflowController, rows: Rows, unchecked_database: Database
) -> None:
    run_id = _enqueue(controller, *KEYS)
    _make_due(rows, run_id)
    redispatcher = Redispatcher(unchecked_database, Settings(redispatch_rate=0.2, sweep_s=50))
    assert redispatcher.send_due() == 10
    _pass_time(unchecked_database, -3600)
    assert redispatcher.send_due() == 10
    assert redispatcher.send_due() == 0


def test_an_allowance_that_was_used_up_a_moment_ago_is_not_there_again(
    controller: WorkflowController, unchecked_database: Database
) -> None:
    """Within the same millisecond too, where SQLite's difference of two times is some microseconds too large."""
    _enqueue(controller, *KEYS)
    for used_s in range(5, 200, 5):
        pace = Pace(Settings(redispatch_rate=0.2, sweep_s=used_s))
        with unchecked_database.engine.begin() as connection:
            connection.execute(delete(_commands).where(_commands.c.session_id == "*"))
            granted = pace.draw(connection)
            assert granted == pace.burst
            pace.pay(connection, granted)
            assert pace.draw(connection) == 0


def test_while_one_process_holds_the_allowance_another_sends_nothing_and_does_not_wait(
    controller: WorkflowController, rows: Rows, unchecked_database: Database
) -> None:
    if unchecked_database.dialect == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    run_id = _enqueue(controller, *KEYS)
    _make_due(rows, run_id)
    settings = Settings()
    redispatcher = Redispatcher(unchecked_database, settings)
    assert redispatcher.send_due() == len(KEYS)
    _make_due(rows, run_id)
    _pass_time(unchecked_database, 1000)
    with unchecked_database.engine.begin() as connection:
        assert Pace(settings).draw(connection) == 2500
        assert redispatcher.send_due() == 0
    assert redispatcher.send_due() == len(KEYS)


def test_a_pace_of_less_than_one_message_a_sweep_still_sends() -> None:
    pace = Pace(Settings(redispatch_rate=0.01, sweep_s=5))
    assert pace.burst == 1


def test_no_session_can_have_the_name_of_the_allowance() -> None:
    with pytest.raises(Exception, match="session_id"):
        parse_command({"id": "redispatch", "command": "list", "session_id": "*"})


def test_the_outcome_of_old_commands_goes_and_the_pace_stays(
    controller: WorkflowController, rows: Rows, unchecked_database: Database
) -> None:
    """The allowance's row is forgotten like a command when nothing was sent again for a day, and made again."""
    run_id = _enqueue(controller, *KEYS)
    settings = Settings(redispatch_rate=0.2, sweep_s=50)
    _make_due(rows, run_id)
    assert Sweeper(unchecked_database, settings).sweep().redispatched == 10
    _pass_time(unchecked_database, 100_000)
    assert Sweeper(unchecked_database, settings).sweep().redispatched == 10
    assert Sweeper(unchecked_database, settings).sweep().redispatched == 0
