"""What `interlock doctor` reads of the database: its clock and settings, the backlog of steps, and what is overdue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core.database.types import seconds_after
from interlock.core.queries.database_health import Backlog, Work, read_server, read_work
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


def test_a_server_tells_its_clock_and_what_decides_whether_writes_survive(unchecked_database: Database) -> None:
    server = read_server(unchecked_database)
    assert server.dialect == unchecked_database.dialect
    assert abs(server.skew_s) <= server.doubt_s + 0.1, "it is this machine"
    assert not server.is_standby
    if server.dialect == "sqlite":
        assert (dict(server.settings), server.connections) == ({}, 0)
    else:
        assert {"fsync", "synchronous_commit", "statement_timeout"} <= set(server.settings)
        assert server.connections >= 1


def test_without_runs_nothing_is_to_be_done(unchecked_database: Database) -> None:
    assert read_work(unchecked_database) == Work(executing=0, backlogs=(), overdue_s=0.0)


def test_unsettled_steps_are_counted_by_task_and_queue(
    controller: WorkflowController, worker: WorkerDouble, unchecked_database: Database
) -> None:
    """What is settled, or of a run that does not execute, is no backlog; a time limit counts where all have one."""
    limited = [step("a", task="t", timeout_s=5), step("b", "a", task="t", timeout_s=9), step("c", queue="slow")]
    controller.enqueue_workflow([*limited, step("done", task="t")], task_description="x")
    worker.run("done")
    worker.claim("c")
    paused = controller.enqueue_workflow(steps("z"), task_description="x")
    controller.pause_workflow(paused)
    work = read_work(unchecked_database)
    assert work.executing == 1
    assert work.backlogs == (
        Backlog(task="t", queue=None, steps=2, queued=1, timeout_s=9.0),
        Backlog(task="tasks.c", queue="slow", steps=1, queued=0, timeout_s=None),
    )


@pytest.mark.parametrize("timer", ["dispatch_check_at", "lease_until", "retry_at"])
def test_what_a_sweeper_would_do_at_once_is_overdue_since_it_was_due(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, unchecked_database: Database, timer: str
) -> None:
    run_id = controller.enqueue_workflow(
        steps("a", retry={"max_attempts": 2, "initial_delay_s": 60.0}), task_description="x"
    )
    if timer == "lease_until":
        worker.claim("a")
    elif timer == "retry_at":
        worker.run_failing("a")
    assert read_work(unchecked_database).overdue_s == 0
    rows.set_step(run_id, "a", **{timer: seconds_after(-90)})
    assert read_work(unchecked_database).overdue_s == pytest.approx(90, abs=30)


def test_a_retry_that_has_to_wait_for_a_free_place_is_not_overdue(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, unchecked_database: Database
) -> None:
    plan = {"steps": steps("a", retry={"max_attempts": 2, "initial_delay_s": 60.0}), "max_parallel": 1}
    run_id = controller.enqueue_workflow(plan, task_description="x")
    worker.run_failing("a")
    rows.set_step(run_id, "a", retry_at=seconds_after(-90))
    assert read_work(unchecked_database).overdue_s == 0
