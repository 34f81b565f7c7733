"""Runs whose start time has come or whose deadline has passed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.core.rows import step, steps

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


def test_a_delayed_run_waits_in_draft_until_its_time(
    controller: WorkflowController,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    start_at = datetime.now(UTC) + timedelta(hours=1)
    run_id = controller.enqueue_workflow(steps("a"), task_description="x", start_at=start_at)
    assert not sweeper.sweep()
    assert (rows.run(run_id).status, worker.queue) == ("draft", [])
    rows.set_run(run_id, start_at=datetime.now(UTC) - timedelta(seconds=1))
    assert sweeper.sweep().runs_started == 1
    assert (rows.run(run_id).status, worker.queued) == ("executing", ["a"])
    assert rows.run(run_id).due_at is None
    assert rows.history(run_id)[-1].transitioned_by == "engine"
    assert not sweeper.sweep()


def test_a_delayed_run_can_be_cancelled(controller: WorkflowController, sweeper: Sweeper, rows: Rows) -> None:
    run_id = controller.enqueue_workflow(
        steps("a"),
        task_description="x",
        start_at=datetime.now(UTC) - timedelta(seconds=1),
    )
    controller.cancel_workflow(run_id)
    assert not sweeper.sweep()
    assert rows.path(run_id) == ["draft", "cancelled"]
    assert rows.path(run_id, "a") == ["pending", "cancelled"]


def _late(rows: Rows, run_id: str) -> None:
    rows.set_run(run_id, deadline_at=datetime.now(UTC) - timedelta(seconds=1))


def _with_deadline(controller: WorkflowController) -> str:
    plan = {"deadline_s": 3600, "steps": [step("a"), step("b", "a")]}
    return controller.enqueue_workflow(plan, task_description="x")


def test_a_run_that_misses_its_deadline_fails_with_all_its_steps(
    controller: WorkflowController,
    sweeper: Sweeper,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _with_deadline(controller)
    worker.claim("a")
    assert not sweeper.sweep()
    _late(rows, run_id)
    assert sweeper.sweep().runs_overdue == 1
    assert (rows.run(run_id).status, rows.run(run_id).error) == ("failed", "the workflow's deadline has passed")
    assert rows.states(run_id) == {"a": "cancelled", "b": "cancelled"}
    assert [interrupt.task_id for interrupt in worker.interrupts] == [worker.held["a"].task_id]
    assert not sweeper.sweep()


def test_the_deadline_is_frozen_while_paused(controller: WorkflowController, sweeper: Sweeper, rows: Rows) -> None:
    run_id = _with_deadline(controller)
    controller.pause_workflow(run_id)
    deadline = rows.run(run_id).deadline_at
    rows.set_run(run_id, paused_at=rows.run(run_id).paused_at - timedelta(hours=5))
    assert not sweeper.sweep()
    controller.resume_workflow(run_id)
    moved_s = (rows.run(run_id).deadline_at - deadline).total_seconds()
    assert moved_s == pytest.approx(5 * 3600, abs=30)
    assert not sweeper.sweep()
    assert rows.run(run_id).status == "executing"
