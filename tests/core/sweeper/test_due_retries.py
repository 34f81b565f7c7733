"""Failed steps whose next attempt is due."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core.database.types import seconds_after
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


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
