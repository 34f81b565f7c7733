"""What the two kinds of database do alike, though each in its own way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from interlock.core import open_database
from interlock.core.database.dialects import dialect_of, insert_new
from interlock.core.database.tables import ControlCommand
from interlock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from interlock.core import Database

_commands = ControlCommand.__table__
ROW = {"session_id": "s", "id": "1", "command": "pause", "outcome": {"ok": True}}


def test_a_row_is_inserted_unless_one_with_its_key_is_there(database: Database) -> None:
    with database.engine.begin() as connection:
        assert insert_new(connection, _commands, ROW)
        assert not insert_new(connection, _commands, {**ROW, "command": "resume"})
        assert insert_new(connection, _commands, {**ROW, "id": "2"})
    with database.reading() as connection:
        rows = connection.execute(select(_commands.c.id, _commands.c.command).order_by(_commands.c.id))
        assert [tuple(row) for row in rows] == [("1", "pause"), ("2", "pause")]


@pytest.mark.parametrize("ends", ["commit", "rollback"])
def test_who_inserts_the_same_row_at_the_same_time_waits_for_the_first(database: Database, ends: str) -> None:
    inserted: list[bool] = []

    def insert_too() -> None:
        inserted.append(database.transact(lambda connection, _: insert_new(connection, _commands, ROW)))

    with database.engine.connect().execution_options(interlock_write=True) as first:
        assert insert_new(first, _commands, ROW)
        second = threading.Thread(target=insert_too)
        second.start()
        second.join(0.2)
        assert second.is_alive()
        getattr(first, ends)()
        second.join(30)
    assert inserted == [ends == "rollback"]


def test_a_transaction_that_has_the_write_lock_of_a_file_keeps_other_writers_out(migrated_sqlite_url: str) -> None:
    """Else what it reads next might be stale when it writes, and SQLite would refuse the write for good."""
    database = open_database(migrated_sqlite_url, connect_args={"timeout": 0})
    try:
        with database.engine.begin() as reader:
            dialect_of(reader).take_write_lock(reader)
            with (
                pytest.raises(Exception, match="database is locked"),
                database.engine.connect().execution_options(interlock_write=True) as other,
            ):
                other.begin()
            insert_new(reader, _commands, ROW)
    finally:
        database.dispose()


@pytest.mark.parametrize("url", ["mysql+pymysql://localhost/x", "oracle://x"])
def test_another_kind_of_database_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not supported; use sqlite:/// or postgresql://"):
        open_database(url)
