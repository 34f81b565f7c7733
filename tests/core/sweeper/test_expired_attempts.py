"""Attempts whose lease or time limit is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import StateMachine
from interlock.core.attempts.attempts import Report
from interlock.core.attempts.leases import renew_leases
from interlock.core.sweeper.expired_attempts import ExpiredAttempts
from interlock.core.sweeper.run_kind import NOTHING, SweepResult
from tests.core.rows import steps

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database, WorkflowController
    from interlock.core.settings import Settings
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")

OTHER = "another-token"


def _enqueue(controller: WorkflowController, *keys: str, **options: object) -> str:
    return controller.enqueue_workflow(steps(*keys, **options), task_description="x")


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
    assert sweeper.sweep() == SweepResult(lost=1)
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


def test_an_attempt_over_its_time_is_a_failure_of_its_own(
    controller: WorkflowController,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _enqueue(controller, "a", timeout_s=5)
    worker.claim("a")
    rows.make_due(run_id, "a", "timeout_at")
    assert sweeper.sweep() == SweepResult(timed_out=1)
    assert rows.run(run_id).status == "failed"
    assert rows.run(run_id).error == "a: the attempt ran over its time limit"


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


def test_an_attempt_that_was_renewed_or_has_reported_since_it_was_found_is_left_alone(
    controller: WorkflowController,
    settings: Settings,
    worker: WorkerDouble,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    """Between the sweeper's scan and its lock the heartbeat came, and then the result."""
    run_id = _enqueue(controller, "a")
    ref = worker.claim("a")
    rows.make_due(run_id, "a", "lease_until")
    kind = ExpiredAttempts(unchecked_database, settings)
    with unchecked_database.reading() as connection:
        (stale,) = kind.due(connection, 10, ())
    renew_leases(unchecked_database, settings, [ref.task_id])
    assert kind.enter(stale) == NOTHING
    assert worker.attempts.complete(ref, 1) is Report.RECORDED
    assert kind.enter(stale) == NOTHING
    assert rows.run(run_id).status == "completed"
