"""A sweep as a whole: any number of sweepers acts once, and what fails keeps nothing else from being done."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import OperationalError

from interlock.core import WorkflowController, open_database
from interlock.core.attempts.attempts import Attempts
from interlock.core.errors import RunNotFound
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper, SweepResult
from tests.core.rows import Rows, step, steps
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from interlock.core import Database

DEADLINE_S = 30
LATER = {"initial_delay_s": 60.0}  # a retry that does not fall due while the test runs


def _enqueue(controller: WorkflowController, *keys: str, **options: object) -> str:
    return controller.enqueue_workflow(steps(*keys, **options), task_description="x")


@pytest.mark.usefixtures("database")
def test_a_quiet_database_gives_the_sweeper_nothing_to_do(
    controller: WorkflowController,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = controller.enqueue_workflow([step("a"), step("b"), step("c", "a b")], task_description="x")
    worker.claim("a")
    before = rows.history(run_id)
    assert not sweeper.sweep()
    worker.complete("a")
    worker.run_all()
    assert not sweeper.sweep()
    assert rows.history(run_id)[: len(before)] == before


# dead workers


@pytest.mark.usefixtures("database")
def test_one_run_in_trouble_does_not_keep_the_others_from_being_swept(
    controller: WorkflowController,
    unchecked_database: Database,
    worker: WorkerDouble,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Archived between the scan and the lock, or moved by a newer version. It is tried again after a pause."""
    now = 0.0
    sweeper = Sweeper(unchecked_database, Settings(), clock=lambda: now)
    options = {"retry": {"max_attempts": 2, "initial_delay_s": 60.0}}
    rows = Rows(unchecked_database)
    runs = [_enqueue(controller, "a", "b", **options) for _ in range(3)]
    for run_id in runs:
        worker.run_failing("a")
        worker.claim("b")
        rows.make_due(run_id, "a", "retry_at")
        rows.make_due(run_id, "b", "lease_until")
    lock = UnitOfWork.lock

    def lock_others(connection: Any, effects: Any, run_id: str, **options: Any) -> UnitOfWork:
        if run_id == runs[0]:
            raise RunNotFound(run_id)
        return lock(connection, effects, run_id, **options)

    with monkeypatch.context() as patch:
        patch.setattr(UnitOfWork, "lock", lock_others)
        assert sweeper.sweep() == SweepResult(lost=2, retried=2)
    assert caplog.text.count(f"could not sweep the workflow {runs[0]}") == 2
    assert not sweeper.sweep()
    now = Settings().sweep_s
    assert sweeper.sweep() == SweepResult(lost=1, retried=1)


# many sweepers


@pytest.mark.usefixtures("database")
def test_sweepers_at_once_act_once(
    core_url: str,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """Four threads with a database each, released together, over every kind of due row."""
    settings = Settings()
    run_id = _enqueue(controller, "lost", "dead", "retry", retry={"max_attempts": 2, "initial_delay_s": 0.0})
    later = {"max_attempts": 2, "initial_delay_s": 60.0}
    other = _enqueue(controller, "again", "idle", retry=later)
    worker.claim("dead")
    worker.run_failing("again")
    worker.queue.clear()
    rows.make_due(run_id, "lost", "dispatch_check_at")
    rows.make_due(run_id, "dead", "lease_until")
    rows.make_due(other, "again", "retry_at")
    databases = [open_database(core_url) for _ in range(4)]
    doubles = [WorkerDouble(database, settings) for database in databases]
    swept: list[SweepResult] = []
    barrier = threading.Barrier(len(databases))

    def run(database: Database) -> None:
        barrier.wait(DEADLINE_S)
        swept.append(Sweeper(database, settings).sweep())

    threads = [threading.Thread(target=run, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    for database in databases:
        database.dispose()
    assert len(swept) == len(databases)
    assert sum(one.redispatched for one in swept) == 1
    assert sum(one.lost for one in swept) == 1
    assert sum(one.retried for one in swept) == 1
    sent = [dispatch.key for double in doubles for dispatch in double.queue]
    assert sorted(sent) == ["again", "dead", "lost"]
    assert rows.path(run_id, "dead") == ["pending", "running", "failed", "running"]


# what fails keeps nothing else from being done


@pytest.fixture
def two_lost(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> tuple[str, str]:
    """Two runs, each with a step whose lease has ended, the first one first."""
    ids = [controller.enqueue_workflow(steps("a", retry=LATER), task_description="Be lost.") for _ in range(2)]
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
    assert not sweeper.sweep(), "it is backed off"
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
    monkeypatch.setattr(Attempts, "fail_within", lambda *_: away(_))
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
    """They are first again at every sweep; so they are backed off, for longer each time, and tried again."""
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

        def fails(batch: int) -> SweepResult:
            raise RuntimeError(batch)

        run_id = controller.enqueue_workflow(steps("a", retry=LATER), task_description="Be lost.")
        worker.claim("a")
        rows.make_due(run_id, "a", "lease_until")
        sweeper._parts = {**parts, broken: fails}
        assert sweeper.sweep() == SweepResult(lost=1)
        assert not sweeper.sweep()
        assert caplog.text.count(f"the sweep of {broken} failed; the others go on") == 1
        sweeper._parts = parts
        assert not sweeper.sweep()
