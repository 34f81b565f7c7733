"""`verify` as a whole: sound databases are clean, older rows are counted and not failed, one run can be checked alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from interlock.core.errors import RunNotFound
from interlock.core.verify import Finding, Verification, verify
from tests.core.verify.corruptions import OF_THE_WHOLE
from tests.core.verify.workload import RUNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core import Database, WorkflowController
    from tests.core.worker_double import WorkerDouble

PLAN = {
    "task_description": "verify me",
    "steps": [
        {"key": "a", "task": "t"},
        {"key": "b", "task": "t", "after": "a"},
        {"key": "gate", "after": "a", "approval": {}},
        {"key": "c", "task": "t", "after": ["b", "gate"]},
    ],
}


def _findings(database: Database, run_id: str | None = None) -> tuple[list[Finding], Verification]:
    verification = Verification()
    return list(verify(database, verification, run_id)), verification


def _change(database: Database, statement: str, **values: object) -> None:
    with database.engine.begin() as connection:
        connection.execute(text(statement), values)


def _forget_history(database: Database) -> None:
    """Delete the history, past the triggers that refuse it."""
    if database.dialect == "sqlite":
        _change(database, "DROP TRIGGER state_history_no_delete")
        _change(database, "DELETE FROM state_history")
        return
    _change(database, "ALTER TABLE state_history DISABLE TRIGGER USER")
    try:
        _change(database, "DELETE FROM state_history")
    finally:
        _change(database, "ALTER TABLE state_history ENABLE TRIGGER USER")


@pytest.fixture
def half_done(controller: WorkflowController, worker: WorkerDouble) -> str:
    """A run with a completed step, a held one, one that waits for a person, and one that waits for both."""
    run_id = controller.enqueue_workflow(PLAN)
    worker.run("a")
    worker.claim("b")
    return run_id


@pytest.mark.usefixtures("half_done")
def test_a_sound_database_is_clean(database: Database) -> None:
    findings, verification = _findings(database)
    assert findings == []
    assert verification.clean
    assert (verification.runs, verification.steps, verification.without_history) == (1, 4, 0)
    assert verification.rows > len(PLAN["steps"])


def test_a_database_without_runs_is_clean(database: Database) -> None:
    assert _findings(database) == ([], Verification())


@pytest.mark.usefixtures("half_done")
def test_runs_and_steps_that_are_older_than_the_history_are_told_and_not_failed(unchecked_database: Database) -> None:
    _forget_history(unchecked_database)
    _change(unchecked_database, "UPDATE workflow_runs SET seq = 0")
    findings, verification = _findings(unchecked_database)
    assert findings == []
    assert verification.without_history == 5


def test_an_older_run_that_goes_on_under_the_history_is_not_failed_for_its_beginning(
    unchecked_database: Database, controller: WorkflowController, worker: WorkerDouble, half_done: str
) -> None:
    _forget_history(unchecked_database)
    _change(unchecked_database, "UPDATE workflow_runs SET seq = 0")
    worker.complete("b")
    controller.approve_step(half_done, "gate")
    worker.run_all()
    findings, verification = _findings(unchecked_database)
    assert findings == []
    assert verification.without_history == 5  # none shows its beginning, though all but one have moved


@pytest.mark.usefixtures("half_done")
def test_a_run_that_has_lost_its_history_is_no_older_run(unchecked_database: Database) -> None:
    _forget_history(unchecked_database)
    findings, _ = _findings(unchecked_database)
    assert [finding.kind for finding in findings] == ["seq_counter"]


def test_one_run_can_be_checked_alone(
    unchecked_database: Database, controller: WorkflowController, half_done: str
) -> None:
    other = controller.enqueue_workflow(PLAN)
    _change(unchecked_database, "UPDATE workflow_runs SET open_steps = 99 WHERE id = :id", id=other)
    assert _findings(unchecked_database, half_done)[0] == []
    assert [finding.kind for finding in _findings(unchecked_database, other)[0]] == ["open_steps"]


@pytest.mark.parametrize("run_id", ["00000000-0000-0000-0000-000000000000", "no-uuid"])
def test_a_run_that_does_not_exist_is_not_clean_but_not_found(database: Database, run_id: str) -> None:
    with pytest.raises(RunNotFound):
        _findings(database, run_id)


def test_what_the_engine_leaves_is_clean(copy: Database) -> None:
    findings, verification = _findings(copy)
    assert findings == []
    assert verification.clean
    assert (verification.runs, verification.without_history) == (RUNS, 0)


@pytest.mark.parametrize("name", OF_THE_WHOLE)
def test_what_only_the_whole_database_shows_is_found(kinds_found: Callable[[list[str]], set[str]], name: str) -> None:
    statements, kind = OF_THE_WHOLE[name]
    assert kind in kinds_found(statements)
