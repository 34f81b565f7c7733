"""What a step's expressions see of its workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery import Celery

from interlock.signals.dispatch.dispatcher import Dispatcher
from tests.core.asking import enqueue
from tests.core.mapped import mapped
from tests.core.rows import step

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from interlock.core.settings import Settings
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")
ON = {"on_failure": "continue"}


def _enqueue(controller: WorkflowController, *plan: dict[str, object], document: object = None) -> str:
    return controller.enqueue_workflow(list(plan), task_description="x", input=document)


def test_a_condition_sees_results_and_states(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = _enqueue(
        controller,
        step("a"),
        step("b", **ON),
        step("many", "a", when="results.a.n > `10`"),
        step("few", "a", when="results.a.n <= `10`"),
        step("mend", "b", trigger="all_settled", when="states.b == 'failed'"),
    )
    worker.run("a", {"n": 3})
    worker.run_failing("b")
    assert worker.queued == ["few", "mend"]
    assert rows.states(run_id)["many"] == "skipped"


def test_those_behind_a_map_see_the_joined_list_and_not_the_items(
    controller: WorkflowController,
    worker: WorkerDouble,
    unchecked_database: Database,
    settings: Settings,
) -> None:
    enqueue(controller, step("l"), mapped(), step("j", "m", args=[{"$expr": "results.m"}, {"$expr": "results"}]))
    worker.run("l", [1, 2])
    worker.run("m.0", 10)
    worker.run("m.1", 20)
    (dispatch,) = worker.queue
    found = Dispatcher(Celery("test"), unchecked_database, settings)._arguments(dispatch)
    assert found == ([[10, 20], {"l": [1, 2], "m": [10, 20]}], {})
    worker.run_all()
