"""`verify` finds what must not be, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from interlock.core.verify import Finding, Verification, verify

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController

    from .worker_double import WorkerDouble

PLAN = {
    "task_description": "verify me",
    "steps": [
        {"key": "a", "task": "t"},
        {"key": "b", "task": "t", "after": "a"},
        {"key": "gate", "after": "a", "approval": {}},
        {"key": "c", "task": "t", "after": ["b", "gate"]},
    ],
}

# What is done to a sound database, and the finding it must lead to. Triggers that would refuse it are dropped first.
CORRUPTIONS = {
    "a status changed behind the history": (
        "UPDATE workflow_steps SET status='failed' WHERE key='b'",
        "status_mismatch",
    ),
    "a history row deleted": ("DELETE FROM state_history WHERE seq=5", "seq_gap"),
    "the last history row deleted": (
        "DELETE FROM state_history WHERE seq=(SELECT max(seq) FROM state_history)",
        "seq_counter",
    ),
    "an edge that is not in the table": (
        "UPDATE state_history SET to_state='paused' WHERE step_key='a' AND to_state='running'",
        "illegal_edge",
    ),
    "a from_state rewritten": (
        "UPDATE state_history SET from_state='paused' WHERE step_key='a' AND to_state='completed'",
        "broken_chain",
    ),
    "an unknown state": (
        "UPDATE state_history SET to_state='done' WHERE step_key='a' AND to_state='completed'",
        "unknown_state",
    ),
    "a status that does not exist": ("UPDATE workflow_steps SET status='done' WHERE key='b'", "status_mismatch"),
    "a counter of open steps": ("UPDATE workflow_runs SET open_steps=open_steps+1", "open_steps"),
    "a counter of dependencies": ("UPDATE workflow_steps SET open_deps=5 WHERE key='c'", "open_deps"),
    "a counter of waiting steps": ("UPDATE workflow_runs SET waiting_steps=0", "waiting_steps"),
    "a step of another session": ("UPDATE workflow_steps SET session_id='other' WHERE key='b'", "foreign_session"),
    "a timer lost": ("UPDATE workflow_steps SET lease_until=NULL WHERE key='b'", "forgotten"),
    "a request lost": ("DELETE FROM approval_requests", "requests"),
    "history of a step that is not there": ("DELETE FROM workflow_steps WHERE key='c'", "unknown_entity"),
    "a workflow ended over open steps": ("UPDATE workflow_runs SET status='completed'", "unsettled"),
}


def _findings(database: Database) -> tuple[list[Finding], Verification]:
    verification = Verification()
    return list(verify(database, verification)), verification


@pytest.fixture
def half_done(controller: WorkflowController, worker: WorkerDouble) -> str:
    """A run with a completed step, a held one, one that waits for a person, and one that waits for both."""
    run_id = controller.enqueue_workflow(PLAN)
    worker.claim("a")
    worker.complete("a")
    worker.claim("b")
    return run_id


def _without_triggers(database: Database) -> None:
    with database.engine.begin() as connection:
        if database.dialect == "sqlite":
            names = connection.scalars(text("SELECT name FROM sqlite_master WHERE type='trigger'")).all()
            for name in names:
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("ALTER TABLE state_history DISABLE TRIGGER USER"))


@pytest.mark.usefixtures("half_done")
def test_a_sound_database_is_clean(database: Database) -> None:
    findings, verification = _findings(database)
    assert findings == []
    assert verification.clean
    assert (verification.runs, verification.steps, verification.without_history) == (1, 4, 0)
    assert verification.rows > len(PLAN["steps"])


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.usefixtures("half_done")
def test_each_planted_corruption_is_found(unchecked_database: Database, name: str) -> None:
    statement, kind = CORRUPTIONS[name]
    _without_triggers(unchecked_database)
    try:
        with unchecked_database.engine.begin() as connection:
            connection.execute(text(statement))
        findings, verification = _findings(unchecked_database)
    finally:
        if unchecked_database.dialect == "postgresql":
            with unchecked_database.engine.begin() as connection:
                connection.execute(text("ALTER TABLE state_history ENABLE TRIGGER USER"))
    assert kind in {finding.kind for finding in findings}, findings
    assert verification.findings[kind] == sum(finding.kind == kind for finding in findings)


def test_entities_without_history_are_reported_and_not_failed(unchecked_database: Database, half_done: str) -> None:
    _without_triggers(unchecked_database)
    try:
        with unchecked_database.engine.begin() as connection:
            connection.execute(text("DELETE FROM state_history"))
        findings, verification = _findings(unchecked_database)
    finally:
        if unchecked_database.dialect == "postgresql":
            with unchecked_database.engine.begin() as connection:
                connection.execute(text("ALTER TABLE state_history ENABLE TRIGGER USER"))
    assert findings == []
    assert verification.without_history == 5
    assert half_done


def test_one_run_can_be_checked_alone(
    unchecked_database: Database, controller: WorkflowController, half_done: str
) -> None:
    other = controller.enqueue_workflow(PLAN)
    with unchecked_database.engine.begin() as connection:
        connection.execute(text("UPDATE workflow_runs SET open_steps=99 WHERE id=:id"), {"id": other})
    assert list(verify(unchecked_database, Verification(), half_done)) == []
    assert [finding.kind for finding in verify(unchecked_database, Verification(), other)] == ["open_steps"]
