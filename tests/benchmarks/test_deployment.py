"""A figure counts only when what was measured is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from benchmarks.deployment import chain_of, check_runs
from interlock import Client
from interlock.core import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.database.database import Database


@pytest.fixture
def database(migrated_sqlite_url: str) -> Iterator[Database]:
    database = open_database(migrated_sqlite_url)
    yield database
    database.dispose()


@pytest.fixture
def run_id(database: Database) -> Iterator[str]:
    """A run of three steps that waits for a worker."""
    with Client(database_url=str(database.engine.url)) as client:
        yield client.enqueue(chain_of(3))


def test_a_sound_run_in_the_expected_state_is_accepted(database: Database, run_id: str) -> None:
    check_runs(database, [run_id], steps=3, status="executing")


def test_a_run_that_has_not_ended_is_no_result(database: Database, run_id: str) -> None:
    with pytest.raises(AssertionError, match="not completed"):
        check_runs(database, [run_id], steps=3)


def test_a_missing_step_is_no_result(database: Database, run_id: str) -> None:
    with pytest.raises(AssertionError, match="steps=3"):
        check_runs(database, [run_id], steps=4, status="executing")


def test_a_history_that_does_not_fit_is_no_result(database: Database, run_id: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE workflow_steps SET status = 'completed'"))
    with pytest.raises(AssertionError, match="status_mismatch"):
        check_runs(database, [run_id], steps=3, status="executing")
