"""How many statements the verbs take: constant per thousand steps, and cancel in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from interlock.core import StateMachine, WorkflowController
from tests.core.rows import counted, steps

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from interlock.core import Database
    from interlock.core.settings import Settings
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

STEPS = 1_000


def _enqueued(controller: WorkflowController, count: int) -> str:
    return controller.enqueue_workflow(steps(*(f"s{n}" for n in range(count))), task_description="x")


def _statements(controller: WorkflowController, worker: WorkerDouble, database: Database, count: int) -> dict[str, int]:
    """How many statements each verb takes for a run of `count` roots, of which one is claimed."""
    taken = {}
    with counted(database.engine) as sent:
        run_id = _enqueued(controller, count)
    taken["enqueue"] = len(sent)
    worker.claim("s0")
    worker.queue.clear()
    for verb in ("pause", "resume", "cancel"):
        with counted(database.engine) as sent:
            getattr(controller, f"{verb}_workflow")(run_id)
        taken[verb] = len(sent)
    return taken


@pytest.mark.usefixtures("database")
def test_the_verbs_take_as_many_statements_for_many_steps_as_for_two(
    controller: WorkflowController,
    worker: WorkerDouble,
    unchecked_database: Database,
) -> None:
    few = _statements(controller, worker, unchecked_database, 2)
    many = _statements(controller, worker, unchecked_database, 300)
    assert many == few
    assert max(few.values()) <= 25


@pytest.mark.usefixtures("database")
def test_cancelling_a_thousand_steps_is_one_transaction(
    controller: WorkflowController,
    worker: WorkerDouble,
    unchecked_database: Database,
    rows: Rows,
) -> None:
    run_id = _enqueued(controller, STEPS)
    transactions: list[str] = []
    for name in ("begin", "commit", "rollback"):
        event.listen(unchecked_database.engine, name, lambda connection, name=name: transactions.append(name))  # noqa: ARG005
    worker.changes.clear()
    with counted(unchecked_database.engine) as statements:
        controller.cancel_workflow(run_id)
    assert transactions == ["begin", "commit"]
    assert len(statements) <= 12
    assert [change.to_state for change in worker.changes] == ["cancelled"] * (STEPS + 1)
    assert set(rows.states(run_id).values()) == {"cancelled"}


@pytest.mark.long
@pytest.mark.parametrize("core_url", ["sqlite"], indirect=True)  # the statements are the same on both
def test_a_run_of_ten_thousand_steps_is_moved_by_a_constant_number_of_statements_per_thousand(
    session: Session,
    worker: WorkerDouble,
    database: Database,
    settings: Settings,
) -> None:
    """Ten times the steps may take ten times the statements; most verbs take the same few."""
    controller = WorkflowController(session, settings=settings)
    taken = _statements(controller, worker, database, 10 * STEPS)
    assert max(taken.values()) <= 30


@pytest.mark.usefixtures("database")
def test_claim_and_completion_take_a_fixed_number_of_statements(
    controller: WorkflowController,
    worker: WorkerDouble,
    unchecked_database: Database,
) -> None:
    """However large the run: what a step costs does not depend on those beside it."""
    counts = []
    for size in (3, 300):
        _enqueued(controller, size)
        with counted(unchecked_database.engine) as claim:
            worker.claim("s1")
        with counted(unchecked_database.engine) as complete:
            worker.complete("s1", 1)
        counts.append((len(claim), len(complete)))
        worker.queue.clear()
    assert counts[0] == counts[1]
    assert sum(counts[0]) <= 14


@pytest.mark.usefixtures("database")
def test_a_transition_of_one_entity_does_not_touch_the_others(
    controller: WorkflowController,
    session: Session,
    unchecked_database: Database,
) -> None:
    counts = []
    for size in (2, 300):
        run_id = _enqueued(controller, size)
        with counted(unchecked_database.engine) as sent:
            StateMachine(session, "workflow_run").transition_to(run_id, "paused")
        counts.append(len(sent))
        StateMachine(session, "workflow_run").transition_to(run_id, "executing")
    assert counts[0] == counts[1] <= 6
