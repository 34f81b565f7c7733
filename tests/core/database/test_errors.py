"""Which errors of a database pass by themselves, so that a worker keeps its report and tries again."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from interlock.core import open_database
from interlock.core.database.errors import is_unavailable, may_succeed_later
from interlock.core.database.tables import WorkflowRun, new_id
from interlock.core.errors import DatabaseBusy, RunNotFound
from tests.processes import wait_until

if TYPE_CHECKING:
    from interlock.core import Database

_runs = WorkflowRun.__table__


def _insert(database: Database) -> None:
    row = {"id": new_id(), "session_id": "s", "task_description": "x" * 100_000}
    database.transact(lambda connection, _: connection.execute(insert(_runs).values(**row)))


def _count(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM workflow_runs")))


def test_a_full_disk_keeps_nothing_of_a_transaction_and_passes(migrated_sqlite_url: str) -> None:
    """F17: SQLite's own limit on a file's size stands for the disk's."""
    database = open_database(migrated_sqlite_url, pool_size=1, max_overflow=0)
    try:
        with database.reading() as connection:
            pages = connection.scalar(text("PRAGMA page_count"))
            connection.execute(text(f"PRAGMA max_page_count = {pages + 2}"))
        with pytest.raises(OperationalError, match="full") as full:
            _insert(database)
        assert may_succeed_later(full.value)
        assert _count(database) == 0
        with database.reading() as connection:
            connection.execute(text("PRAGMA max_page_count = 1000000"))
        _insert(database)
        assert _count(database) == 1
    finally:
        database.dispose()


def test_a_server_that_has_become_read_only_is_left_for_another_connection(migrated_postgres_url: str) -> None:
    """A failover: what is connected to the old primary must not go on asking it."""
    database = open_database(migrated_postgres_url, pool_size=1, max_overflow=0)
    try:
        with database.engine.connect() as connection:
            connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
            connection.commit()
        with pytest.raises(InternalError, match="read-only") as refused:
            _insert(database)
        assert may_succeed_later(refused.value)
        _insert(database)
        assert _count(database) == 1
    finally:
        database.dispose()


def test_a_transaction_that_stands_still_is_ended_by_the_server_and_passes(migrated_postgres_url: str) -> None:
    database, other = open_database(migrated_postgres_url), open_database(migrated_postgres_url)
    database.prepare_connections(0.05)
    alive = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
    try:
        with database.engine.connect() as connection:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))

            def gone() -> bool:
                with other.reading() as watcher:  # each look is a transaction: what is seen in one stays as it was
                    return not watcher.scalar(alive, {"pid": pid})

            wait_until(gone, 10, "the server has ended it")
            with pytest.raises(DBAPIError) as ended:
                connection.execute(text("SELECT 1"))
        assert may_succeed_later(ended.value)
        assert _count(database) == 0
    finally:
        database.dispose()
        other.dispose()


def _sqlstate(state: str) -> DBAPIError:
    original: Any = SimpleNamespace(sqlstate=state)
    return DBAPIError(None, None, original)


@pytest.mark.parametrize(
    "state", ["53100", "53300", "57P01", "57P03", "25P03", "08006", "25006", "40001", "25P04", "58030"]
)
def test_a_server_that_is_full_away_or_starting_passes(state: str) -> None:
    assert may_succeed_later(_sqlstate(state))


def test_a_statement_that_was_cut_off_by_a_timeout_may_succeed_later_though_the_database_is_there() -> None:
    """Most often it waited for a lock; so a worker keeps its report, and a sweep goes on with the next run."""
    assert may_succeed_later(_sqlstate("57014"))
    assert not is_unavailable(_sqlstate("57014"))


@pytest.mark.parametrize("state", ["23505", "42P01", "22P02", "28P01"])
def test_what_is_wrong_with_the_statement_does_not_pass(state: str) -> None:
    assert not may_succeed_later(_sqlstate(state))


def test_errors_of_ours_say_it_themselves() -> None:
    assert may_succeed_later(DatabaseBusy("busy"))
    assert not may_succeed_later(RunNotFound("r"))
    assert may_succeed_later(PoolTimeout("no connection is free"))
    assert not may_succeed_later(KeyError("x"))


def test_a_table_that_is_missing_does_not_pass(sqlite_url: str, postgres_url: str) -> None:
    for url, kind in ((sqlite_url, OperationalError), (postgres_url, ProgrammingError)):
        database = open_database(url)
        with pytest.raises(kind) as missing:
            _insert(database)
        database.dispose()
        assert isinstance(missing.value.orig, (sqlite3.Error, psycopg.Error))
        assert not may_succeed_later(missing.value)
