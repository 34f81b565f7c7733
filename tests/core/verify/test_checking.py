"""`verify` sees every run, one or all, whatever the size of its batches; older rows are counted and not failed.

That it finds what must not be is shown on copies of a real database: tests/worker/test_verify_copies.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, text

from interlock.core.database.tables import StateHistory, WorkflowRun
from interlock.core.errors import RunNotFound
from interlock.core.verify import Finding, Verification, reading, verify
from tests.core.rows import steps

if TYPE_CHECKING:
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


@pytest.mark.parametrize("size", [1, 2, 3, 500])
def test_every_run_is_seen_once_however_the_batches_fall(
    unchecked_database: Database, controller: WorkflowController, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(reading, "_BATCH_RUNS", size)
    ids = [controller.enqueue_workflow(steps("a", "b"), task_description="x") for _ in range(6)]
    _change(unchecked_database, "UPDATE workflow_runs SET open_steps = 99")
    findings, verification = _findings(unchecked_database)
    assert [finding.run_id for finding in findings] == sorted(ids)
    assert (verification.runs, verification.steps, verification.rows) == (6, 12, 30)


def test_a_batch_ends_after_a_run_with_a_long_history(
    unchecked_database: Database, controller: WorkflowController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot is not kept for 500 runs of 10,000 steps."""
    monkeypatch.setattr(reading, "_BATCH_ROWS", 6)
    for _ in range(4):
        controller.enqueue_workflow(steps("a", "b"), task_description="x")
    sizes, after = [], None
    while True:
        with reading.next_runs(unchecked_database, after) as batch:
            sizes.append(len(batch.runs))
        if batch.upto is None:
            break
        after = batch.upto
    assert sizes == [2, 2, 0]


@pytest.mark.parametrize("size", [1, 500])
def test_rows_of_runs_that_are_gone_are_found_before_between_and_behind_the_others(
    unchecked_database: Database, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(reading, "_BATCH_RUNS", size)
    ids = [f"{digit}0000000-0000-4000-8000-000000000000" for digit in "123456789"]
    row = {"entity_type": "workflow_run", "session_id": "s", "to_state": "draft", "transitioned_by": "x"}
    with unchecked_database.engine.begin() as connection:
        connection.execute(insert(WorkflowRun), [{"id": id_, "status": "draft"} for id_ in ids[1::2]])
        history = [{"entity_id": id_, "workflow_id": id_, "seq": seq, **row} for id_ in ids[::2] for seq in (1, 2)]
        connection.execute(insert(StateHistory), history)
    findings, verification = _findings(unchecked_database)
    assert [(finding.kind, finding.run_id) for finding in findings] == [("orphan", id_) for id_ in ids[::2]]
    assert findings[0].text == "2 rows of state_history of a run that does not exist"
    assert (verification.runs, verification.rows) == (4, 0)


def test_no_transaction_is_open_while_somebody_reads_what_was_found(
    unchecked_database: Database, controller: WorkflowController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes: `interlock verify | less` keeps nobody from vacuuming, and is not cut off for standing still."""
    monkeypatch.setattr(reading, "_BATCH_RUNS", 1)
    for _ in range(3):
        controller.enqueue_workflow(steps("a"), task_description="x")
    _change(unchecked_database, "UPDATE workflow_runs SET open_steps = 99")
    found = 0
    for _ in verify(unchecked_database, Verification()):
        assert unchecked_database.engine.pool.checkedout() == 0
        found += 1
    assert found == 3


def test_a_kind_that_is_not_documented_cannot_be_found() -> None:
    with pytest.raises(ValueError, match="surprise"):
        Finding("surprise", "run", "workflow", "text")


def test_a_snapshot_does_not_move_and_cannot_be_written_through(
    database: Database, controller: WorkflowController
) -> None:
    count = text("SELECT count(*) FROM workflow_runs")
    with database.snapshot() as connection:
        assert connection.scalar(count) == 0
        controller.create_workflow("x")
        assert connection.scalar(count) == 0
    with database.reading() as connection:
        assert connection.scalar(count) == 1
        if database.dialect == "postgresql":
            assert connection.scalar(text("SHOW transaction_isolation")) == "read committed"
            assert connection.scalar(text("SHOW transaction_read_only")) == "off"
