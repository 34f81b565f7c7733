"""Column types and SQL functions mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import JSON, insert, literal, select
from sqlalchemy.exc import StatementError

from interlock.core.database.tables import WorkflowRun, WorkflowStep
from interlock.core.database.types import UtcDateTime, clock, earliest, seconds_after, seconds_between

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

    from interlock.core import Database

_runs, _steps = WorkflowRun.__table__, WorkflowStep.__table__
ID = "6a1c4a5e-0000-4000-8000-000000000001"
NOON = datetime(2030, 1, 1, 12, 0, 0, 250_001, tzinfo=UTC)


def _time(time: datetime | None) -> ColumnElement[Any]:
    return literal(time, UtcDateTime)


def _ask(database: Database, expression: ColumnElement[Any]) -> Any:
    with database.reading() as connection:
        return connection.scalar(select(expression))


def _stored(unchecked_database: Database, **values: object) -> Any:
    with unchecked_database.engine.begin() as connection:
        connection.execute(insert(_runs).values(**{"id": ID, "session_id": "s", "status": "draft", **values}))
        return connection.execute(select(_runs)).one()


def test_an_id_is_given_as_a_uuid_or_its_text_and_comes_back_as_text_with_hyphens(unchecked_database: Database) -> None:
    assert _stored(unchecked_database, id=UUID(ID)).id == ID
    with unchecked_database.reading() as connection:
        for wanted in (ID, UUID(ID)):
            assert connection.scalar(select(_runs.c.id).where(_runs.c.id == wanted)) == ID


def test_what_is_no_uuid_equals_no_id(unchecked_database: Database) -> None:
    _stored(unchecked_database)
    with unchecked_database.reading() as connection:
        assert connection.scalar(select(_runs.c.id).where(_runs.c.id == "no-uuid")) is None


def test_times_keep_their_microseconds_and_come_back_in_utc(unchecked_database: Database) -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    row = _stored(unchecked_database, start_at=elsewhere)
    assert row.start_at == NOON
    assert row.start_at.utcoffset() == timedelta(0)


def test_a_time_without_a_zone_is_refused(unchecked_database: Database) -> None:
    with pytest.raises(StatementError, match="has no time zone"):
        _stored(unchecked_database, start_at=NOON.replace(tzinfo=None))


def test_no_document_and_the_document_null_are_two_things(unchecked_database: Database) -> None:
    """A step that returned None has a result."""
    with unchecked_database.engine.begin() as connection:
        connection.execute(insert(_runs).values(id=ID, session_id="s", status="draft"))
        rows = [{"key": "none", "result": None}, {"key": "null", "result": JSON.NULL}]
        for row in rows:
            step = {"id": ID.replace("1", (row["key"] == "none" and "2") or "3"), "run_id": ID, "session_id": "s"}
            connection.execute(insert(_steps).values(status="completed", **step, **row))
        has_result = select(_steps.c.key).where(_steps.c.result.is_not(None))
        assert connection.scalars(has_result).all() == ["null"]
        assert connection.scalars(select(_steps.c.result)).all() == [None, None]


def test_the_clock_is_that_of_the_statement_and_not_of_the_transaction(unchecked_database: Database) -> None:
    with unchecked_database.reading() as connection:
        first = connection.scalar(select(clock()))
        times = [connection.scalar(select(clock())) for _ in range(200)]
    assert times == sorted(times)
    assert times[-1] > first


def test_seconds_are_added_and_counted_to_the_millisecond(unchecked_database: Database) -> None:
    for seconds in (90.5, -3600.0, 0.001):
        later = _ask(unchecked_database, seconds_after(seconds, _time(NOON)))
        assert abs((later - NOON).total_seconds() - seconds) < 0.001
        between = _ask(unchecked_database, seconds_between(_time(NOON), _time(NOON + timedelta(seconds=seconds))))
        assert float(between) == pytest.approx(seconds, abs=0.001)


def test_from_no_time_there_is_no_time_after(unchecked_database: Database) -> None:
    assert _ask(unchecked_database, seconds_after(5.0, _time(None))) is None


def test_the_earliest_of_some_times_leaves_out_those_that_are_not_there(unchecked_database: Database) -> None:
    later = NOON + timedelta(microseconds=1)
    assert _ask(unchecked_database, earliest(_time(None), _time(later), _time(NOON))) == NOON
    assert _ask(unchecked_database, earliest(_time(None), _time(None))) is None
