"""Many rows at once, of several tables where they belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import bindparam, func, select, update

from interlock.core.database.bulk_insert import Batch, insert_batches, insert_rows, update_then_insert
from interlock.core.database.tables import StateHistory, StepDependency, WorkflowRun, WorkflowStep
from tests.core.rows import counted

if TYPE_CHECKING:
    from sqlalchemy import Table

    from interlock.core import Database

_runs, _steps = WorkflowRun.__table__, WorkflowStep.__table__
_dependencies, _history = StepDependency.__table__, StateHistory.__table__


def _run() -> dict[str, Any]:
    return {"id": str(uuid4()), "session_id": "s", "status": "draft", "input": {"ü": [1, None]}}


def _step(run: dict[str, Any], key: str) -> dict[str, Any]:
    return {"id": str(uuid4()), "run_id": run["id"], "session_id": "s", "key": key, "status": "pending"}


def _history_row(run: dict[str, Any], seq: int) -> dict[str, Any]:
    row = {"entity_type": "workflow_run", "entity_id": run["id"], "session_id": "s", "workflow_id": run["id"]}
    return {**row, "seq": seq, "to_state": "draft", "transitioned_by": "x"}


def _count(database: Database, table: Table) -> int:
    with database.reading() as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def test_rows_of_several_tables_are_stored_together_with_the_defaults_of_what_they_do_not_name(
    unchecked_database: Database,
) -> None:
    """On PostgreSQL in one statement, though each refers to those before it."""
    run = _run()
    steps = [{**_step(run, key), "retry_at": seconds} for key, seconds in (("a", 60.0), ("b", None))]
    edge = {"upstream_id": steps[0]["id"], "step_id": steps[1]["id"], "run_id": run["id"]}
    batches = [
        Batch(_runs, [run]),
        Batch(_steps, steps, timers=("retry_at",)),
        Batch(_dependencies, [edge]),
        Batch(_history, [_history_row(run, seq) for seq in (1, 2)]),
    ]
    with counted(unchecked_database.engine) as statements, unchecked_database.engine.begin() as connection:
        stored = insert_batches(connection, batches, ("seq", "id"))
    assert sorted(row.seq for row in stored) == [1, 2]
    if unchecked_database.dialect == "postgresql":
        assert len([text for text in statements if "INSERT" in text]) == 1
    with unchecked_database.reading() as connection:
        assert connection.execute(select(_runs.c.input, _runs.c.seq)).one() == ({"ü": [1, None]}, 0)
        due = connection.execute(select(_steps.c.key, _steps.c.due_at).order_by(_steps.c.key)).all()
    assert [(row.key, row.due_at is not None) for row in due] == [("a", True), ("b", False)]
    assert _count(unchecked_database, _dependencies) == 1


def test_more_rows_than_one_statement_takes_are_all_stored(unchecked_database: Database) -> None:
    run = _run()
    with unchecked_database.engine.begin() as connection:
        batches = [Batch(_runs, [run]), Batch(_steps, [_step(run, str(number)) for number in range(5_001)])]
        assert len(insert_batches(connection, batches, ("id",))) == 5_001
    assert _count(unchecked_database, _steps) == 5_001


def test_nothing_is_stored_of_no_rows(unchecked_database: Database) -> None:
    with counted(unchecked_database.engine) as statements, unchecked_database.engine.begin() as connection:
        insert_rows(connection, _runs, [])
        assert insert_batches(connection, [Batch(_runs, []), Batch(_steps, [])], ("id",)) == []
    assert [text for text in statements if "INSERT" in text] == []


@pytest.mark.parametrize("is_there", [True, False])
def test_rows_are_inserted_only_where_the_row_before_them_was_updated(
    unchecked_database: Database, *, is_there: bool
) -> None:
    run = _run()
    written = (
        update(_runs)
        .where(_runs.c.id == bindparam("of_run"), _runs.c.status == ("draft" if is_there else "failed"))
        .values(seq=1)
    )
    with unchecked_database.engine.begin() as connection:
        insert_rows(connection, _runs, [run])
        batch = Batch(_history, [_history_row(run, 1)])
        stored = update_then_insert(connection, written, {"of_run": run["id"]}, batch, ("seq",))
    assert (stored is None) is not is_there
    assert _count(unchecked_database, _history) == is_there
