"""Reading the history: in order of seq, one statement, one session."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from interlock.core.queries.history import HistoryReader, read_changes, read_head, read_heads
from tests.signals.scripts import Run, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.database.database import Database

_LONG = timedelta(days=1)


@pytest.fixture
def history_database(migrated_url: str) -> Iterator[Database]:
    with opened(migrated_url) as database:
        yield database


def test_changes_come_in_order_of_seq_and_equal_what_was_committed(history_database: Database) -> None:
    run = Run(history_database)
    run.move(3, meta={"n": [1, None, "ü"]})
    run.end()

    with history_database.reading() as connection:
        assert read_changes(connection, run.id, session_id="default") == run.changes


def test_reading_begins_behind_after_seq_and_stops_at_the_limit(history_database: Database) -> None:
    run = Run(history_database)
    run.move(5)

    with history_database.reading() as connection:
        found = read_changes(connection, run.id, session_id="default", after_seq=2, limit=3)

    assert [each.seq for each in found] == [3, 4, 5]


def test_nothing_is_read_of_another_session_or_of_an_unknown_run(history_database: Database) -> None:
    run = Run(history_database, "mine")

    with history_database.reading() as connection:
        assert read_changes(connection, run.id, session_id="other") == []
        assert read_changes(connection, "no-uuid", session_id="mine") == []
        assert read_head(connection, run.id, session_id="other") is None
        assert read_heads(connection, "other").seqs == {}


def test_changes_and_heads_take_one_statement_each(history_database: Database) -> None:
    run = Run(history_database)
    statements: list[str] = []

    with history_database.reading() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        read_changes(connection, run.id, session_id="default")
        read_heads(connection, "default")

    assert [text.split()[0] for text in statements if not text.startswith("BEGIN")] == ["SELECT", "SELECT"]


def test_changes_are_found_by_the_unique_index_without_sorting(migrated_sqlite_url: str) -> None:
    with opened(migrated_sqlite_url) as database, database.reading() as connection:
        plans: list[str] = []
        event.listen(
            connection,
            "before_cursor_execute",
            lambda _c, cursor, text, parameters, *_: plans.extend(
                str(row[3]) for row in cursor.execute(f"EXPLAIN QUERY PLAN {text}", parameters).fetchall()
            ),
        )
        read_changes(connection, "x", session_id="default")

    assert any("workflow_id=? AND seq>?" in plan for plan in plans), plans
    assert not any("TEMP B-TREE" in plan for plan in plans), plans


def test_heads_are_the_runs_that_go_on(history_database: Database) -> None:
    live, over = Run(history_database), Run(history_database)
    live.move(4)
    over.end()

    with history_database.reading() as connection:
        heads = read_heads(connection, "default")

    assert heads.seqs == {live.id: 5}
    assert heads.at >= over.changes[-1].created_at  # type: ignore[operator] # rows have a time


def test_runs_that_ended_are_found_by_when_they_were_created_and_ended(history_database: Database) -> None:
    over = Run(history_database)
    over.end()

    with history_database.reading() as connection:
        now = read_heads(connection, "default").at
        long_ago, to_come = now - _LONG, now + _LONG
        found = [
            read_heads(connection, "default", created_after=created, ended_after=ended).seqs
            for created, ended in [(long_ago, long_ago), (to_come, long_ago), (long_ago, to_come)]
        ]

    assert found == [{over.id: 2}, {}, {}]


def test_a_head_tells_how_far_a_run_is_and_when_it_ended(history_database: Database) -> None:
    run = Run(history_database)
    reader = HistoryReader(history_database, "default")
    assert (head := reader.head(run.id)) is not None
    assert (head.seq, head.completed_at) == (1, None)

    run.end()

    assert (head := reader.head(run.id)) is not None
    assert head.seq == 2
    assert head.completed_at is not None
