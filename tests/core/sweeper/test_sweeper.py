"""What falls due, and that any number of sweepers does it once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select

from interlock.core import StateMachine, WorkflowController, open_database
from interlock.core.attempts.attempts import Attempts, Report
from interlock.core.database.tables import ControlCommand, WorkflowStep
from interlock.core.database.types import seconds_after
from interlock.core.errors import RunNotFound
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper, Swept
from tests.core.rows import Rows, step, steps
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database

DEADLINE_S = 30
OTHER = "another-token"


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


# lost messages


@pytest.mark.usefixtures("database")
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
        assert sweeper.sweep() == Swept(redispatched=1)
        assert [(sent.task_id, sent.attempt) for sent in worker.queue] == [(task_id, 1)]
    worker.run("a", 1)
    assert rows.path(run_id, "a") == ["pending", "running", "completed"]


def _seconds_until(database: Database, key: str) -> float:
    from interlock.core.database.types import clock, seconds_between  # noqa: PLC0415 - only here

    query = select(seconds_between(clock(), WorkflowStep.dispatch_check_at)).where(WorkflowStep.key == key)
    with database.reading() as connection:
        return float(connection.scalar(query) or 0)


@pytest.mark.usefixtures("database")
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


@pytest.mark.usefixtures("database")
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


# dead workers


@pytest.mark.usefixtures("database")
def test_an_expired_lease_is_a_lost_worker_and_the_step_runs_again_under_a_new_id(
    controller: WorkflowController,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, "a", retry={"initial_delay_s": 0.0})
    dead = worker.claim("a", "worker@dead")
    assert not sweeper.sweep()
    rows.make_due(run_id, "a", "lease_until")
    assert sweeper.sweep() == Swept(lost=1)
    row = rows.step(run_id, "a")
    assert (row.status, row.losses, row.failures, row.attempt) == ("running", 1, 0, 2)
    assert [dispatch.task_id for dispatch in worker.queue] == [row.task_id]
    assert row.task_id != dead.task_id
    failed = next(entry for entry in rows.history(run_id) if entry.to_state == "failed")
    assert failed.transition_reason == "worker lost"
    assert failed.meta["worker"] == "worker@dead"
    worker.run("a", "second")
    assert worker.attempts.complete(dead, "first") is Report.STALE
    assert rows.step(run_id, "a").result == "second"
    assert rows.path(run_id, "a") == ["pending", "running", "failed", "running", "completed"]


@pytest.mark.usefixtures("database")
def test_an_attempt_over_its_time_is_a_failure_of_its_own(
    controller: WorkflowController,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, "a", timeout_s=5)
    worker.claim("a")
    rows.make_due(run_id, "a", "timeout_at")
    assert sweeper.sweep() == Swept(timed_out=1)
    assert rows.run(run_id).status == "failed"
    assert rows.run(run_id).error == "a: the attempt ran over its time limit"


@pytest.mark.usefixtures("database")
def test_a_lease_of_a_step_that_was_moved_by_hand_is_not_taken_for_a_lost_worker(
    controller: WorkflowController,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
    session: Session,
) -> None:
    run_id = _enqueue(controller, "a", "b")
    worker.claim("a")
    StateMachine(session, "workflow_step").transition_to(rows.step(run_id, "a").id, "cancelled")
    rows.set_step(run_id, "a", claim_token=OTHER, lease_until=rows.step(run_id, "a").created_at)
    assert not sweeper.sweep()
    controller.cancel_workflow(run_id)
    rows.set_step(run_id, "a", claim_token=None, lease_until=None)


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
        assert sweeper.sweep() == Swept(lost=2, retried=2)
    assert caplog.text.count(f"could not sweep the workflow {runs[0]}") == 2
    assert not sweeper.sweep()
    now = Settings().sweep_s
    assert sweeper.sweep() == Swept(lost=1, retried=1)


# runs that others have moved


@pytest.fixture
def planned_by_hand(session: Session, controller: WorkflowController) -> str:
    """A run moved to executing by the bare state machine, which starts nothing."""
    run = controller.create_workflow("x", plan=[step("a"), step("b", "a"), step("c", when="input")])
    machine = StateMachine(session, "workflow_run")
    machine.transition_to(run.id, "planning")
    machine.transition_to(run.id, "executing")
    return run.id


def test_the_sweeper_starts_what_was_moved_to_executing_by_hand(
    planned_by_hand: str,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    assert worker.queue == []
    assert sweeper.sweep() == Swept(revived=1)
    assert rows.states(planned_by_hand) == {"a": "pending", "b": "pending", "c": "skipped"}
    assert not sweeper.sweep()
    worker.run_all()
    assert rows.run(planned_by_hand).status == "completed"


def test_the_sweeper_goes_on_from_steps_that_were_settled_by_hand(
    controller: WorkflowController,
    session: Session,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """The bare machine moves one entity and counts nothing; the counters are found again."""
    plan = [step("a"), step("b", "a"), step("c", "a b"), step("d", "c")]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    machine = StateMachine(session, "workflow_step")
    worker.claim("a")
    machine.transition_to(rows.step(run_id, "a").id, "completed")
    assert sweeper.sweep() == Swept(revived=1)
    assert worker.queued == ["b"]
    machine.transition_to(rows.step(run_id, "d").id, "cancelled")
    worker.run("b")
    worker.run("c")
    assert rows.run(run_id).status == "executing"
    assert sweeper.sweep() == Swept(revived=1)
    assert (rows.run(run_id).status, rows.run(run_id).open_steps) == ("completed", 0)


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
    swept: list[Swept] = []
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


@pytest.mark.usefixtures("database")
def test_a_sweeper_that_acts_on_a_stale_read_changes_nothing(
    controller: WorkflowController,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    """Between its scan and its lock the heartbeat came."""
    run_id = _enqueue(controller, "a")
    ref = worker.claim("a")
    rows.make_due(run_id, "a", "lease_until")
    with unchecked_database.reading() as connection:
        table = WorkflowStep.__table__
        stale = connection.execute(
            select(
                table.c.id,
                table.c.run_id,
                table.c.task_id,
                table.c.claim_token,
                table.c.claimed_by,
                table.c.id.is_not(None).label("lost"),
            ),
        ).one()
    from interlock.core.attempts.leases import renew_leases  # noqa: PLC0415 - only here

    settings = Settings()
    renew_leases(unchecked_database, settings, [ref.task_id])
    assert sweeper._overdue.expire(stale) is False
    assert Attempts(unchecked_database, settings).complete(ref, 1) is Report.RECORDED
    assert sweeper._overdue.expire(stale) is False
    assert rows.run(run_id).status == "completed"


def test_outcomes_of_commands_are_forgotten_after_their_time(database: Database) -> None:
    with database.session() as session:
        for name, age_s in (("old", 100), ("young", 1)):
            created_at = seconds_after(-age_s)
            session.execute(
                insert(ControlCommand).values(
                    session_id="s", id=name, command="pause", outcome={"ok": True}, created_at=created_at
                ),
            )
    Sweeper(database, Settings(command_ids_kept_s=50)).sweep()
    with database.session() as session:
        assert list(session.scalars(select(ControlCommand.id))) == ["young"]
