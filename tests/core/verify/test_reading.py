"""Runs are read in batches: every run once, and no transaction stays open between two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, text

from interlock.core.database.tables import StateHistory, WorkflowRun
from interlock.core.verify import Finding, Verification, reading, verify
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController


def _findings(database: Database, run_id: str | None = None) -> tuple[list[Finding], Verification]:
    verification = Verification()
    return list(verify(database, verification, run_id)), verification


def _change(database: Database, statement: str, **values: object) -> None:
    with database.engine.begin() as connection:
        connection.execute(text(statement), values)


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
