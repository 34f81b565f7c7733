"""What a database says about its own tables, in a form that can be compared."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, NullPool, inspect, text

from interlock.core.database.database import open_database
from interlock.core.database.tables import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = tuple(sorted(Base.metadata.tables))

_POSTGRESQL = {
    "columns": """
        SELECT table_name, ordinal_position, column_name, data_type, udt_name, character_maximum_length, is_nullable,
               column_default, is_generated, generation_expression
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name = ANY(:ours)
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE conrelid::regclass::text = ANY(:ours)
    """,
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE tablename = ANY(:ours)",
}
_ADDED = re.compile(r", (?=\w+ \w+\(\d+\), *$)", re.MULTILINE)
_LEFT_BEHIND = {
    "sqlite": "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    "postgresql": """
        SELECT 'relation', relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT 'function', proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'type', typname FROM pg_type WHERE typnamespace = 'public'::regnamespace
    """,
}


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection in a transaction that is committed at the end of the block; it takes SQLite's write lock."""
    database = open_database(url, poolclass=NullPool)
    with database.engine.connect().execution_options(interlock_write=True) as connection, connection.begin():
        yield connection


def execute(url: str, *statements: str) -> None:
    """Run statements in one transaction."""
    with connected(url) as connection:
        for statement in statements:
            connection.execute(text(statement))


def set_revision(url: str, revision: str) -> None:
    """Make the database say that it is at `revision`."""
    with connected(url) as connection:
        connection.execute(text("UPDATE interlock_version SET version_num = :revision"), {"revision": revision})


def tables(url: str) -> set[str]:
    """Names of all tables."""
    with connected(url) as connection:
        return set(inspect(connection).get_table_names())


def objects(url: str) -> set[tuple[str, str]]:
    """Everything that is in the database, by kind and name."""
    with connected(url) as connection:
        return {(row[0], row[1]) for row in connection.execute(text(_LEFT_BEHIND[connection.dialect.name]))}


def definitions(url: str) -> dict[str, list[str]]:
    """What Interlock's tables, constraints and indexes are, down to the text of their expressions."""
    with connected(url) as connection:
        if connection.dialect.name == "sqlite":
            return _sqlite_definitions(connection)
        return {
            kind: sorted(str(tuple(row)) for row in connection.execute(text(query), {"ours": list(OURS)}))
            for kind, query in _POSTGRESQL.items()
        }


def _sqlite_definitions(connection: Connection) -> dict[str, list[str]]:
    query = text("SELECT name, tbl_name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL")
    # One column or constraint per line; their order is of no account. SQLite writes a column that was added on the line of another.
    return {
        row.name: sorted(line.strip().rstrip(", ") for line in _ADDED.sub(",\n", row.sql).splitlines())
        for row in connection.execute(query)
        if row.tbl_name in OURS
    }
