"""A run that cannot be swept, whatever is wrong with it, keeps no other run from being swept; nor a part of the sweep another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import OperationalError

from interlock.core.database.types import seconds_after
from interlock.core.settings import Settings
from interlock.core.sweeper.backoff import PutOff
from interlock.core.sweeper.sweeper import Sweeper, Swept
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble


@pytest.fixture
def two_lost(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> tuple[str, str]:
    """Two runs, each with a step whose lease has ended, the first one first."""
    ids = [controller.enqueue_workflow(steps("a"), task_description="Be lost.") for _ in range(2)]
    for _ in ids:
        worker.claim("a")
    for run_id in ids:
        rows.make_due(run_id, "a", "lease_until")
    return ids[0], ids[1]


def test_a_row_that_this_version_cannot_read_stops_nobody_else(
    sweeper: Sweeper, rows: Rows, two_lost: tuple[str, str]
) -> None:
    """A policy with an option of a newer version: an error of no kind that the engine raises itself."""
    poisoned, healthy = two_lost
    rows.set_step(poisoned, "a", spec={"retry": {"max_attempts": 3, "novelty": True}})
    sweeper.sweep()
    assert rows.step(healthy, "a").losses == 1
    assert rows.step(poisoned, "a").losses == 0


def test_a_run_whose_history_refuses_rows_stops_nobody_else(
    controller: WorkflowController,
    sweeper: Sweeper,
    rows: Rows,
    two_lost: tuple[str, str],
    unchecked_database: Database,
) -> None:
    """Its number was set back, so that every row collides with one that is there."""
    poisoned, healthy = two_lost
    seq = rows.run(poisoned).seq
    rows.set_run(poisoned, seq=1)
    sweeper.sweep()
    assert rows.step(healthy, "a").losses == 1
    rows.set_run(poisoned, seq=seq)
    assert not sweeper.sweep(), "it is put off"
    assert Sweeper(unchecked_database, Settings()).sweep().lost == 1
    controller.cancel_workflow(poisoned)


def test_a_database_that_is_away_ends_the_sweep(
    sweeper: Sweeper, two_lost: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would come of going on: the other runs are in the same database."""
    tried: list[str] = []

    def away(row: object) -> bool:
        tried.append(str(row))
        raise OperationalError("SELECT", {}, Exception("connection refused"))

    assert two_lost
    monkeypatch.setattr(sweeper._overdue._attempts, "fail_within", lambda *_: away(_))
    with pytest.raises(OperationalError):
        sweeper.sweep()
    assert len(tried) == 1


POISON = {"retry": {"max_attempts": 3, "novelty": True}}  # of a newer version


class Time:
    """A clock to be moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_whole_batch_of_runs_in_trouble_does_not_hide_those_behind_it(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, unchecked_database: Database
) -> None:
    """They are first again at every sweep; so they are put off, for longer each time, and tried again."""
    clock = Time()
    sweeper = Sweeper(unchecked_database, Settings(), clock=clock)
    runs = [controller.enqueue_workflow(steps("a"), task_description="Be lost.") for _ in range(5)]
    for _ in runs:
        worker.claim("a")
    for run_id in runs[:3]:
        rows.set_step(run_id, "a", spec=POISON)
    for run_id in runs:
        rows.make_due(run_id, "a", "lease_until")
    assert [sweeper.sweep(batch=3).lost for _ in range(3)] == [0, 2, 0]
    rows.set_step(runs[0], "a", spec={})
    assert sweeper.sweep(batch=3).lost == 0  # the others may be retried by now
    clock.now = Settings().sweep_s
    assert sweeper.sweep(batch=3).lost == 1
    rows.set_step(runs[1], "a", spec={})
    clock.now += Settings().sweep_s
    assert sweeper.sweep(batch=3).lost == 0, "the second pause is twice as long"
    clock.now += Settings().sweep_s
    assert sweeper.sweep(batch=3).lost == 1
    rows.set_step(runs[2], "a", spec={})
    clock.now += 60
    assert sweeper.sweep(batch=3).lost == 1


def test_retries_that_have_no_place_do_not_hide_those_of_other_runs(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, unchecked_database: Database
) -> None:
    """A person asked for more retries than the limit admits at once: they stay due."""
    plan = {"steps": [*steps("a", "b", "c", on_failure="continue"), *steps("d")], "max_parallel": 1}
    full = controller.enqueue_workflow(plan, task_description="Be full.")
    for key in "abc":
        worker.run_failing(key)
    worker.claim("d")
    waiting = controller.enqueue_workflow(
        steps("z", retry={"max_attempts": 2, "initial_delay_s": 60.0}), task_description="Wait."
    )
    worker.run_failing("z")
    rows.make_due(waiting, "z", "retry_at")
    for key in "abc":
        controller.retry_step(full, key)
        rows.set_step(full, key, retry_at=seconds_after(-60))
    sweeper = Sweeper(unchecked_database, Settings())
    assert [sweeper.sweep(batch=3).retried for _ in range(2)] == [0, 1]
    assert rows.step(waiting, "z").attempt == 2
    worker.complete("d")
    assert Sweeper(unchecked_database, Settings()).sweep().retried == 1


def test_a_part_of_the_sweep_that_fails_keeps_no_other_from_being_done(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whichever it is; said once, until it works again."""
    sweeper = Sweeper(unchecked_database, Settings())
    parts = dict(sweeper._parts)
    for broken in ("dispatches", "runs", "missing"):

        def fails(batch: int, swept: Swept) -> None:
            raise RuntimeError(batch, swept)

        run_id = controller.enqueue_workflow(steps("a"), task_description="Be lost.")
        worker.claim("a")
        rows.make_due(run_id, "a", "lease_until")
        sweeper._parts = {**parts, broken: fails}
        assert sweeper.sweep() == Swept(lost=1)
        assert not sweeper.sweep()
        assert caplog.text.count(f"the sweep of {broken} failed; the others go on") == 1
        sweeper._parts = parts
        assert not sweeper.sweep()


def test_a_pause_doubles_up_to_the_longest_and_is_forgotten_after_a_success_or_a_long_quiet() -> None:
    clock = Time()
    put_off = PutOff(5, 60, clock)
    for pause_s in (5, 10, 20, 40, 60, 60):
        put_off.add("a")
        clock.now += pause_s - 0.1
        assert put_off.now() == ["a"]
        clock.now += 0.2
        assert put_off.now() == []
    put_off.forget("a")
    put_off.add("a")
    clock.now += 5.1
    assert put_off.now() == []
    put_off.add("a")
    clock.now += 10 + 60.1
    put_off.add("a")
    clock.now += 5.1
    assert put_off.now() == []


def test_no_more_is_remembered_than_a_statement_can_take() -> None:
    put_off = PutOff(5, 60, lambda: 0.0)
    for number in range(6_000):
        put_off.add(str(number))
    assert put_off.now() == [str(number) for number in range(1_000, 6_000)]
