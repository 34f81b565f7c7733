"""state_history can only be appended to: the database itself refuses everything else, whoever asks."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from tests.migrations.catalog import connected, execute

REFUSAL = "state_history is append-only"

_INSERT = """
    INTO state_history (entity_type, entity_id, session_id, workflow_id, seq, to_state, transitioned_by)
    VALUES ('workflow_run', :run, 'default', :run, :seq, 'draft', 'someone')
"""


def _append(connection: Connection, run: str, seq: int, verb: str = "INSERT", ending: str = "") -> None:
    connection.execute(text(f"{verb} {_INSERT} {ending}"), {"run": run, "seq": seq})


@pytest.fixture
def run(migrated_url: str) -> str:
    """The id of a run with two rows of history."""
    run = str(uuid4())
    with connected(migrated_url) as connection:
        connection.execute(
            text("INSERT INTO workflow_runs (id, session_id, status) VALUES (:run, 'default', 'draft')"),
            {"run": run},
        )
        _append(connection, run, 1)
        _append(connection, run, 2)
    return run


def _rows(url: str) -> list[tuple[int, str, str]]:
    with connected(url) as connection:
        query = text("SELECT seq, to_state, transitioned_by FROM state_history ORDER BY seq")
        return [(row.seq, row.to_state, row.transitioned_by) for row in connection.execute(query)]


BOTH_ROWS = [(1, "draft", "someone"), (2, "draft", "someone")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state_history SET transitioned_by = 'nobody'",
        "UPDATE state_history SET seq = seq + 10",
        "UPDATE state_history SET to_state = to_state WHERE seq = 2",
        "DELETE FROM state_history",
        "DELETE FROM state_history WHERE seq = 2",
    ],
)
@pytest.mark.usefixtures("run")
def test_neither_update_nor_delete_reaches_the_history_of_a_living_run(migrated_url: str, statement: str) -> None:
    with pytest.raises(IntegrityError, match=REFUSAL):
        execute(migrated_url, statement)
    assert _rows(migrated_url) == BOTH_ROWS


@pytest.mark.usefixtures("run")
def test_truncate_is_refused(migrated_postgres_url: str) -> None:
    with pytest.raises(IntegrityError, match=REFUSAL):
        execute(migrated_postgres_url, "TRUNCATE state_history")
    with pytest.raises(IntegrityError, match=REFUSAL):
        execute(migrated_postgres_url, "TRUNCATE state_history, workflow_runs CASCADE")


def test_a_number_cannot_be_given_twice(migrated_url: str, run: str) -> None:
    with pytest.raises(IntegrityError), connected(migrated_url) as connection:
        _append(connection, run, 2)


def test_a_row_cannot_be_replaced_by_inserting_over_it(migrated_url: str, run: str) -> None:
    """INSERT OR REPLACE deletes past SQLite's DELETE triggers; ON CONFLICT updates."""
    replace = {"verb": "INSERT OR REPLACE"} if migrated_url.startswith("sqlite") else {}
    upsert = {"ending": "ON CONFLICT (workflow_id, seq) DO UPDATE SET transitioned_by = 'nobody'"}
    for how in (replace, upsert):
        with pytest.raises(IntegrityError), connected(migrated_url) as connection:
            _append(connection, run, 2, **how)
    assert _rows(migrated_url) == BOTH_ROWS


def test_a_row_cannot_be_replaced_by_its_id(migrated_sqlite_url: str) -> None:
    insert = (
        "INSERT OR REPLACE INTO state_history"
        " (id, entity_type, entity_id, session_id, workflow_id, seq, to_state, transitioned_by)"
        " VALUES (7, 'workflow_run', 'r', 'default', 'r', {seq}, 'draft', 'someone')"
    )
    execute(migrated_sqlite_url, insert.format(seq=1))
    with pytest.raises(IntegrityError, match=REFUSAL):
        execute(migrated_sqlite_url, insert.format(seq=9))


def test_rows_go_with_an_archived_run(migrated_url: str, run: str) -> None:
    """First the run, then its history; in one transaction, and no other run's."""
    other = str(uuid4())
    with connected(migrated_url) as connection:
        connection.execute(
            text("INSERT INTO workflow_runs (id, session_id, status) VALUES (:run, 'default', 'draft')"),
            {"run": other},
        )
        _append(connection, other, 3)
    with connected(migrated_url) as connection:
        connection.execute(text("DELETE FROM workflow_runs WHERE id = :run"), {"run": run})
        connection.execute(text("DELETE FROM state_history WHERE workflow_id = :run"), {"run": run})
    assert _rows(migrated_url) == [(3, "draft", "someone")]


def test_one_living_run_among_archived_ones_stops_the_whole_delete(migrated_url: str, run: str) -> None:
    gone = str(uuid4())
    with connected(migrated_url) as connection:
        _append(connection, gone, 3)
    with pytest.raises(IntegrityError, match=REFUSAL):
        execute(migrated_url, "DELETE FROM state_history")
    with connected(migrated_url) as connection:
        assert connection.execute(text("SELECT count(*) FROM state_history")).scalar() == 3
        connection.execute(text("DELETE FROM state_history WHERE workflow_id <> :run"), {"run": run})
    assert _rows(migrated_url) == BOTH_ROWS


def test_history_outlives_its_run(migrated_url: str, run: str) -> None:
    with connected(migrated_url) as connection:
        connection.execute(text("DELETE FROM workflow_runs WHERE id = :run"), {"run": run})
    assert _rows(migrated_url) == BOTH_ROWS


@pytest.mark.parametrize(
    "disguise",
    ["CREATE TEMPORARY TABLE workflow_runs (id UUID)", "SET LOCAL search_path = pg_catalog"],
    ids=["temporary table", "search_path"],
)
def test_runs_cannot_be_hidden_from_the_trigger(migrated_postgres_url: str, disguise: str) -> None:
    run = str(uuid4())
    with connected(migrated_postgres_url) as connection:
        connection.execute(
            text("INSERT INTO workflow_runs (id, session_id, status) VALUES (:run, 'default', 'draft')"),
            {"run": run},
        )
        _append(connection, run, 1)
    with pytest.raises(IntegrityError, match=REFUSAL):
        execute(migrated_postgres_url, disguise, "DELETE FROM public.state_history")
