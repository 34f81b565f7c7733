"""Inserts many rows at once, of several tables where they belong together.

Driver and server handle each row of an `executemany` like a statement of its own. PostgreSQL takes all rows as JSON documents in
one statement, at a fifth of the cost; SQLite runs inside the process and has no round trip to save.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, Float, Text, bindparam, cast, column, func, insert, select
from sqlalchemy import table as table_clause

from .dialects import dialect_of
from .types import seconds_after

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, FromClause, Insert, Row, Table, Update

__all__ = ["Batch", "insert_batches", "insert_rows", "update_then_insert"]

_ROWS = 5_000  # in one statement
_WRITTEN = "written"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one table that all name the same columns, with JSON values; the other columns get their defaults.

    Attributes:
        table: Where.
        rows: By the columns' names.
        timers: Columns of times that are given as seconds from the database's clock, or None.
    """

    table: Table
    rows: Sequence[Mapping[str, Any]]
    timers: tuple[str, ...] = ()


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows of one table; see `Batch`."""
    insert_batches(connection, [Batch(table, rows)])


def insert_batches(
    connection: Connection, batches: Sequence[Batch], returning: tuple[str, ...] = ()
) -> list[Row[*tuple[Any, ...]]]:
    """Insert rows, those that others refer to first, on PostgreSQL in one statement unless they are very many.

    Returns:
        The columns `returning` of the last batch's rows, in no order.
    """
    filled = [batch for batch in batches if batch.rows]
    if not filled:
        return []
    if not dialect_of(connection).writes_in_ctes:
        return [row for batch in filled for row in _insert_each(connection, batch, returning, last=batch is filled[-1])]
    if sum(len(batch.rows) for batch in filled) <= _ROWS:
        return _insert_together(connection, filled, returning)
    return [
        row
        for batch in filled
        for start in range(0, len(batch.rows), _ROWS)
        for row in _insert_together(
            connection,
            [Batch(batch.table, batch.rows[start : start + _ROWS], batch.timers)],
            returning if batch is filled[-1] else (),
        )
    ]


def update_then_insert(
    connection: Connection, written: Update, parameters: Mapping[str, Any], batch: Batch, returning: tuple[str, ...]
) -> Sequence[Row[*tuple[Any, ...]]] | None:
    """Update one row, and insert others if it was found; on PostgreSQL in one statement.

    Args:
        connection: The transaction.
        written: Updates the row.
        parameters: Of `written`.
        batch: What to insert.
        returning: Columns of it.

    Returns:
        The columns `returning` of what was inserted; None where no row was updated, and nothing was inserted.
    """
    if not batch.rows or not dialect_of(connection).writes_in_ctes:
        changed = connection.execute(written, parameters).rowcount == 1
        return insert_batches(connection, [batch], returning) if changed else None
    shape = (batch.table, tuple(batch.rows[0]), batch.timers)
    first = written.returning(*written.table.primary_key).cte(_WRITTEN)
    statement = _statement((shape,), returning, _WRITTEN).add_cte(first)
    return connection.execute(statement, {**parameters, batch.table.name: _document(batch)}).all() or None


def _insert_each(
    connection: Connection, batch: Batch, returning: tuple[str, ...], *, last: bool
) -> Sequence[Row[*tuple[Any, ...]]]:
    rows: Sequence[Mapping[str, Any]] = batch.rows
    if batch.timers:  # a parameter may not be called as the column that it is only a part of
        rows = [{_given(name, batch.timers): value for name, value in row.items()} for row in rows]
    statement = insert(batch.table)
    if batch.timers:
        timers = {name: seconds_after(bindparam(_given(name, batch.timers), type_=Float)) for name in batch.timers}
        statement = statement.values(timers)
    if not (last and returning):
        connection.execute(statement, list(rows))
        return []
    return connection.execute(statement.returning(*(batch.table.c[name] for name in returning)), list(rows)).all()


def _given(name: str, timers: tuple[str, ...]) -> str:
    return f"{name}_from_now" if name in timers else name


def _insert_together(
    connection: Connection, batches: Sequence[Batch], returning: tuple[str, ...]
) -> list[Row[*tuple[Any, ...]]]:
    shapes = tuple((batch.table, tuple(batch.rows[0]), batch.timers) for batch in batches)
    documents = {batch.table.name: _document(batch) for batch in batches}
    result = connection.execute(_statement(shapes, returning), documents)
    return list(result.all()) if returning else []


def _document(batch: Batch) -> str:
    return json.dumps(list(batch.rows), default=_time_text)


def _time_text(value: datetime) -> str:
    return value.isoformat()


@cache
def _statement(
    shapes: tuple[tuple[Table, tuple[str, ...], tuple[str, ...]], ...], returning: tuple[str, ...], *behind: str
) -> Insert:
    """One INSERT with the others before it; foreign keys are looked at when all of it is done.

    Args:
        shapes: Tables, the columns that are given, and which of those are timers.
        returning: Columns of the last table.
        *behind: Names of parts that are added later, and without whose rows nothing is inserted.
    """
    *before, (table, names, timers) = shapes
    others = [
        _insert_from_document(*shape).returning(*shape[0].primary_key).cte(f"new_{shape[0].name}") for shape in before
    ]
    # Counting what the others do has them done first, so that times and ids rise in their order.
    done: list[FromClause] = [*others, *(table_clause(name) for name in behind)]
    conditions = [select(func.count()).select_from(other).scalar_subquery() > 0 for other in done]
    statement = _insert_from_document(table, names, timers, *conditions)
    return statement.returning(*(table.c[name] for name in returning)) if returning else statement


def _insert_from_document(table: Table, names: tuple[str, ...], timers: tuple[str, ...], *conditions: Any) -> Insert:
    given = func.json_to_recordset(cast(bindparam(table.name, type_=Text), JSON)).table_valued(
        *(column(name, Float() if name in timers else table.c[name].type) for name in names)
    )
    given = given.render_derived(name=f"given_{table.name}", with_types=True)
    values = [seconds_after(given.c[name]) if name in timers else given.c[name] for name in names]
    # The defaults are those of the tables: SQLAlchemy fills none in where an INSERT is a part of another one.
    return insert(table).from_select(list(names), select(*values).where(*conditions), include_defaults=False)
