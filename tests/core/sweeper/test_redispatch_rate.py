"""How many messages may be sent again: one allowance for all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, update

from interlock.core import WorkflowController, open_database
from interlock.core.database.tables import RedispatchBudget
from interlock.core.database.types import seconds_after
from interlock.core.settings import Settings
from interlock.core.sweeper.redispatch import Redispatcher
from interlock.core.sweeper.redispatch_rate import RedispatchRate
from interlock.core.sweeper.sweeper import Sweeper
from interlock.signals.control.command import parse_args, parse_fields
from interlock.signals.control.handler import CommandHandler
from tests.core.rows import Rows, steps
from tests.core.worker_double import WorkerDouble
from tests.fault_plans import FaultInjected, FaultRule, injected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from interlock.core import Database

pytestmark = pytest.mark.usefixtures("database")

_budget = RedispatchBudget.__table__
KEYS = [f"s{number:02}" for number in range(25)]


def _enqueue(controller: WorkflowController, *keys: str, **options: object) -> str:
    return controller.enqueue_workflow(steps(*keys, **options), task_description="x")


def _make_due(rows: Rows, run_id: str, keys: Sequence[str] = KEYS) -> None:
    for key in keys:
        rows.make_due(run_id, key, "dispatch_check_at")


def _pass_time(database: Database, seconds: float) -> None:
    """Have the allowance be so much older."""
    with database.engine.begin() as connection:
        connection.execute(update(_budget).values(paid_until=seconds_after(-seconds, _budget.c.paid_until)))


def test_a_sweep_sends_no_more_again_than_the_rate_allows(
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
    hint = parse_fields({"id": "hint", "command": "dispatch"})
    handler = CommandHandler(unchecked_database, settings, None)
    worker.queue.clear()
    assert [sweeper.sweep(batch=4).redispatched for sweeper in sweepers] == [10, 0, 0]
    assert handler.handle(hint, parse_args(hint))["ok"]
    assert worker.queue == []
    _pass_time(unchecked_database, 15)
    assert handler.handle(hint, parse_args(hint))["ok"]
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
        rate = RedispatchRate(Settings(redispatch_rate=0.2, sweep_s=used_s))
        with unchecked_database.engine.begin() as connection:
            connection.execute(delete(_budget))
            granted = rate.draw(connection)
            assert granted == rate.burst
            rate.pay(connection, granted)
            assert rate.draw(connection) == 0


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
        assert RedispatchRate(settings).draw(connection) == 2500
        assert redispatcher.send_due() == 0
    assert redispatcher.send_due() == len(KEYS)


def test_a_rate_of_less_than_one_message_a_sweep_still_sends() -> None:
    rate = RedispatchRate(Settings(redispatch_rate=0.01, sweep_s=5))
    assert rate.burst == 1
