"""Prepared statements on pinned connections: sent, waited for, and what happens where a connection ends."""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from interlock.core.database.connections import PreparedStatement
from interlock.core.database.errors import may_succeed_later
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from interlock.core import Database
    from interlock.core.database.connections import PendingResult

pytestmark = pytest.mark.parametrize("core_url", ["postgresql"], indirect=True)

NOTE = PreparedStatement("note", "INSERT INTO notes (value) VALUES ($1::text) RETURNING length(value)")


@pytest.fixture
def notes(unchecked_database: Database) -> Iterator[Database]:
    """A database with a table to write to."""
    with unchecked_database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (value text)"))
    yield unchecked_database
    with unchecked_database.engine.begin() as connection:
        connection.execute(text("DROP TABLE notes"))


def _send(database: Database, parameters: Sequence[bytes]) -> PendingResult:
    return database._connections.send_prepared(NOTE, parameters)


def _noted(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM notes")) or 0)


def _end_backend(database: Database) -> bool:
    """End the backend that works on an INSERT; a look in a transaction of its own, since a transaction looks once."""
    ended = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND query LIKE 'INSERT INTO notes%' AND pid <> pg_backend_pid() AND state = 'active'"
    )
    with database.reading() as connection:
        return bool(connection.execute(ended).all())


def test_what_was_sent_is_committed_before_anybody_waits_for_it(notes: Database) -> None:
    pending = _send(notes, [b"one"])
    wait_until(lambda: _noted(notes) == 1, 10, "the server has done it")
    assert pending.rows() == [[b"3"]]


def test_several_may_be_under_way_and_be_answered_in_any_order(notes: Database) -> None:
    first, second = (_send(notes, [value]) for value in (b"one", b"three"))
    assert (second.rows(), first.rows()) == ([[b"5"]], [[b"3"]])
    assert _noted(notes) == 2


def test_what_does_not_fit_into_the_socket_is_sent_to_its_end(notes: Database) -> None:
    large = b"x" * 20_000_000
    assert _send(notes, [large]).rows() == [[b"20000000"]]


def test_whoever_waits_for_an_answer_leaves_other_threads_alone(notes: Database) -> None:
    """The answer comes only after this thread has let go of the lock; a wait that stops all threads would never end."""
    _send(notes, [b"so that it is prepared"]).rows()
    answered = threading.Event()
    with notes.engine.begin() as connection:
        connection.execute(text("LOCK TABLE notes"))
        pending = _send(notes, [b"one"])
        waiter = threading.Thread(target=lambda: (pending.rows(), answered.set()))
        waiter.start()
        assert not answered.wait(0.1)
    assert answered.wait(10)
    waiter.join()


def test_a_connection_that_ends_under_way_is_lost_and_replaced(notes: Database) -> None:
    _send(notes, [b"one"]).rows()
    with notes.engine.begin() as connection:
        connection.execute(text("LOCK TABLE notes"))
        pending = _send(notes, [b"two"])
        wait_until(lambda: _end_backend(notes), 10, "its backend is told to end")
        with pytest.raises(DBAPIError) as lost:
            pending.rows()
    assert lost.value.connection_invalidated
    assert may_succeed_later(lost.value)
    assert _send(notes, [b"three"]).rows() == [[b"5"]]


def test_it_does_without_poll_where_a_pool_has_taken_that_away(
    notes: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(select, "poll")
    assert _send(notes, [b"x" * 20_000_000]).rows() == [[b"20000000"]]
    assert _send(notes, [b"one"]).rows() == [[b"3"]]


def test_a_value_that_a_column_cannot_have_finds_no_row(notes: Database) -> None:
    assert notes.run_prepared(PreparedStatement("row", "SELECT $1::uuid"), [b"no id"], "claim", "") == []


def test_a_statement_that_the_server_has_forgotten_is_prepared_anew_and_done_once(notes: Database) -> None:
    """After a ROLLBACK psycopg sends DEALLOCATE ALL where it had prepared statements of its own on the connection."""
    _send(notes, [b"one"]).rows()
    driver = _only_idle(notes).connection.driver_connection
    assert driver is not None
    for _ in range(driver.prepare_threshold + 1):
        driver.execute("SELECT 1")
    driver.rollback()
    driver.execute("SELECT 1")
    driver.rollback()
    assert not driver.execute("SELECT 1 FROM pg_prepared_statements WHERE name = 'note'").fetchall()
    driver.rollback()
    assert _send(notes, [b"three"]).rows() == [[b"5"]]
    assert _send(notes, [b"five"]).rows() == [[b"4"]], "its name is known again"
    assert _noted(notes) == 3


def test_after_a_data_error_in_a_transaction_the_statements_of_its_connection_work(notes: Database) -> None:
    """The transaction is rolled back, and the connection goes back to the pool, from where it may be pinned again."""
    _send(notes, [b"one"]).rows()
    notes._connections.close()
    for _ in range(3):
        with notes.engine.connect() as connection:
            for _ in range(10):
                connection.execute(text("SELECT 1"))
            with pytest.raises(DBAPIError):
                connection.execute(text("SELECT 1 / 0"))
        assert _send(notes, [b"two"]).rows() == [[b"3"]]
        notes._connections.close()


def _only_idle(database: Database) -> Connection:
    [connection] = database._connections._idle
    return connection
