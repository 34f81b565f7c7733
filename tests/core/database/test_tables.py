"""The tables do what their models say: computed columns, defaults, indexes, cascades."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import inspect, select, text, update
from sqlalchemy.exc import DBAPIError

from interlock.core.database.database import open_database
from interlock.core.database.tables import (
    ApprovalRequest,
    Base,
    ControlCommand,
    StateHistory,
    StepDependency,
    WorkflowRun,
    WorkflowStep,
)
from interlock.core.database.types import clock
from tests.migrations.catalog import connected, execute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.database.database import Database

NOON = datetime(2030, 1, 1, 12, 0, 0, 250_001, tzinfo=UTC)
LATER = NOON + timedelta(microseconds=1)
RUN_TIMERS = ("start_at", "deadline_at")
STEP_TIMERS = ("dispatch_check_at", "retry_at", "lease_until", "timeout_at")


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    database = open_database(url)
    try:
        yield database
    finally:
        database.dispose()


def test_postgresql_has_its_native_types(migrated_postgres_url: str) -> None:
    with connected(migrated_postgres_url) as connection:
        columns = {column["name"]: str(column["type"]) for column in inspect(connection).get_columns("workflow_steps")}
        zone = text("SELECT udt_name FROM information_schema.columns WHERE column_name = 'due_at'")
        assert set(connection.scalars(zone)) == {"timestamptz"}
    assert (columns["id"], columns["run_id"], columns["result"]) == ("UUID", "UUID", "JSONB")


@pytest.mark.parametrize("model", [WorkflowRun, WorkflowStep], ids=["run", "step"])
def test_due_at_is_the_earliest_timer_and_nothing_without_one(
    migrated_url: str, model: type[WorkflowRun | WorkflowStep]
) -> None:
    """Times that differ by a microsecond; rows that an UPDATE changes."""
    timers = RUN_TIMERS if model is WorkflowRun else STEP_TIMERS
    with _opened(migrated_url) as database, database.session() as session:
        run = WorkflowRun()
        session.add(run)
        session.flush()
        row = run if model is WorkflowRun else WorkflowStep(run_id=run.id, key="a")
        session.add(row)
        session.flush()

        def due_after(**values: datetime | None) -> datetime | None:
            session.execute(update(model).values({**dict.fromkeys(timers), **values}))
            return session.scalar(select(model.due_at).where(model.id == row.id))

        assert due_after() is None
        for timer in timers:
            assert due_after(**{timer: NOON}) == NOON
            assert due_after(**{**dict.fromkeys(timers, LATER), timer: NOON}) == NOON
        assert due_after() is None


def test_due_at_cannot_be_written(migrated_url: str) -> None:
    with pytest.raises(DBAPIError, match="due_at"):
        execute(migrated_url, "UPDATE workflow_runs SET due_at = start_at")


def test_what_is_due_is_found_through_the_partial_index(migrated_sqlite_url: str) -> None:
    with connected(migrated_sqlite_url) as connection:
        plan = connection.execute(
            text("EXPLAIN QUERY PLAN SELECT id FROM workflow_steps WHERE due_at <= '2030-01-01' ORDER BY due_at"),
        ).all()
    assert "ix_workflow_steps_due_at" in plan[0].detail
    assert len(plan) == 1


def test_the_models_work_on_the_migrated_tables(migrated_url: str) -> None:
    """Each is written and read back in another session, with the database's defaults."""
    with _opened(migrated_url) as database:
        with database.session() as session:
            run = WorkflowRun(name="nightly", input={"day": 1}, deadline_at=NOON)
            session.add(run)
            session.flush()
            first, second = (WorkflowStep(run_id=run.id, key=key, result=["ü", None]) for key in ("a", "b"))
            session.add_all([first, second])
            session.flush()
            session.add_all(
                [
                    StepDependency(run_id=run.id, upstream_id=first.id, step_id=second.id),
                    ApprovalRequest(run_id=run.id, step_id=second.id, session_id="default"),
                    ControlCommand(session_id="default", id="c1", command="pause", outcome={"ok": True}),
                    _history(run, 1),
                    _history(run, 2),
                ],
            )
        with database.session() as session:
            stored = session.get_one(WorkflowRun, run.id)
            now = session.scalar(select(clock()))
            assert (stored.input, stored.deadline_at, stored.due_at) == ({"day": 1}, NOON, NOON)
            assert (stored.seq, stored.open_steps, stored.status, stored.meta) == (0, 0, "draft", None)
            assert now is not None
            assert timedelta(0) <= now - stored.created_at < timedelta(minutes=1)
            steps = session.scalars(select(WorkflowStep).order_by(WorkflowStep.key)).all()
            assert [(step.key, step.attempt) for step in steps] == [("a", 0), ("b", 0)]
            assert [step.result for step in steps] == [["ü", None]] * 2
            assert session.scalars(select(StepDependency.step_id)).all() == [second.id]
            assert session.scalars(select(ApprovalRequest.step_id)).all() == [second.id]
            assert session.scalars(select(ControlCommand.outcome)).all() == [{"ok": True}]
            history = session.scalars(select(StateHistory).order_by(StateHistory.id)).all()
            assert [row.seq for row in history] == [1, 2]


def test_the_rows_of_a_run_go_with_it_except_its_history(migrated_url: str) -> None:
    with _opened(migrated_url) as database, database.session() as session:
        run = WorkflowRun()
        session.add(run)
        session.flush()
        step = WorkflowStep(run_id=run.id, key="a")
        session.add(step)
        session.flush()
        session.add_all(
            [
                ApprovalRequest(run_id=run.id, step_id=step.id, session_id="default"),
                StepDependency(run_id=run.id, upstream_id=step.id, step_id=step.id),
                _history(run, 1),
            ],
        )
        session.flush()
        session.execute(text("DELETE FROM workflow_runs"))
        left = {
            name: session.scalar(select(text("count(*)")).select_from(table))
            for name, table in Base.metadata.tables.items()
        }
    assert {name for name, count in left.items() if count} == {"state_history"}


def _history(run: WorkflowRun, seq: int) -> StateHistory:
    return StateHistory(
        entity_type="workflow_run",
        entity_id=run.id,
        session_id="default",
        workflow_id=run.id,
        seq=seq,
        to_state="draft",
        transitioned_by="someone",
    )
