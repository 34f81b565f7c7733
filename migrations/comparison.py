"""Compares the tables that are there with those of the models.

Alembic compares tables, columns, types, defaults, keys and indexes. It cannot see the expression of a generated column,
the condition of a partial index, or triggers: those are compared here. Storage options are an operator's to tune, and
tables that are not Interlock's are nobody's business here: neither is a difference.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Computed, Table, inspect, text
from sqlalchemy.sql import ClauseElement
from sqlalchemy.types import TypeEngine

from interlock.core.database.revision import VERSION_TABLE
from interlock.core.database.tables import Base
from interlock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Dialect, Inspector

__all__ = ["COMPARED", "TablesDiffer", "find_differences"]

# The triggers of migration 0001, which keep state_history append-only.
_TRIGGERS = {
    "sqlite": {"state_history_no_delete", "state_history_no_replace", "state_history_no_update"},
    "postgresql": {"state_history_no_delete", "state_history_no_truncate", "state_history_no_update"},
}
_READ_TRIGGERS = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'state_history'",
    # tgenabled is D for a trigger that is switched off, R for one that fires on replicas alone.
    "postgresql": (
        "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('state_history') AND tgenabled IN ('O', 'A')"
    ),
}


class TablesDiffer(ConfigurationError):
    """The revision is the expected one, but the tables are not what its migrations made.

    Attributes:
        differences: Each a phrase that begins with the table's name.
    """

    def __init__(self, differences: Sequence[str]) -> None:
        self.differences = tuple(differences)
        super().__init__(
            "the database's tables differ from those of this version; undo what was changed by hand, or restore:\n  "
            + "\n  ".join(self.differences),
        )


def _is_ours(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:  # noqa: ARG001 - Alembic's signature
    return kind != "table" or name in Base.metadata.tables


#: Options of `MigrationContext.configure` and `context.configure` for comparing.
COMPARED: dict[str, Any] = {
    "target_metadata": Base.metadata,
    "version_table": VERSION_TABLE,
    "include_name": _is_ours,
    "compare_type": True,
    "compare_server_default": True,
}


def find_differences(connection: Connection) -> list[str]:
    """Compare the database with the models.

    Returns:
        Phrases such as `workflow_runs.name: missing`; empty when all is as it should be.
    """
    inspector = inspect(connection)
    present = set(inspector.get_table_names())
    tables = [table for table in Base.metadata.sorted_tables if table.name in present]
    found = list(_seen_by_alembic(connection))
    for table in tables:
        found.extend(_generated_columns(inspector, table, connection.dialect))
        found.extend(_partial_indexes(inspector, table, connection.dialect))
    found.extend(_missing_triggers(connection))
    return found


def _seen_by_alembic(connection: Connection) -> Iterator[str]:
    context = MigrationContext.configure(connection, opts=dict(COMPARED))
    with warnings.catch_warnings():
        # All it has for a generated column that differs is a warning; `_generated_columns` says it.
        warnings.filterwarnings("ignore", "Computed default on")
        found = compare_metadata(context, Base.metadata)
    for entry in found:
        # What was modified in one column comes as a list of its own.
        for difference in entry if isinstance(entry, list) else [entry]:
            yield _in_words(difference, connection.dialect)


def _in_words(difference: tuple[Any, ...], dialect: Dialect) -> str:
    verb, *subject = difference
    action, _, kind = verb.partition("_")
    if action == "modify":
        _schema, table, column, _existing, found, expected = subject
        return f"{table}.{column}: {kind} is {_shown(found, dialect)}, should be {_shown(expected, dialect)}"
    item = subject[-1]
    state = "missing" if action == "add" else "not expected"
    if kind == "column":
        return f"{subject[1]}.{item.name}: {state}"
    if kind == "table":
        return f"{item.name}: {state}"
    return f"{item.table.name}: {kind.replace('_', ' ')} {item.name or ''} {state}"


def _shown(value: object, dialect: Dialect) -> str:
    value = getattr(value, "arg", value)  # what a DefaultClause holds
    return str(value.compile(dialect=dialect)) if isinstance(value, (ClauseElement, TypeEngine)) else str(value)


def _generated_columns(inspector: Inspector, table: Table, dialect: Dialect) -> Iterator[str]:
    present = {column["name"]: column.get("computed") for column in inspector.get_columns(table.name)}
    for column in table.columns:
        if column.name not in present:
            continue
        found = present[column.name]
        found_text = found["sqltext"] if found else None
        expected = column.server_default.sqltext if isinstance(column.server_default, Computed) else None
        expected_text = None if expected is None else str(expected.compile(dialect=dialect))
        if _bare(found_text) != _bare(expected_text):
            yield f"{table.name}.{column.name}: generated as {found_text}, should be {expected_text}"


def _partial_indexes(inspector: Inspector, table: Table, dialect: Dialect) -> Iterator[str]:
    present = {index["name"]: index.get("dialect_options", {}) for index in inspector.get_indexes(table.name)}
    for index in table.indexes:
        if index.name not in present:
            continue
        found = present[index.name].get(f"{dialect.name}_where")
        expected = index.dialect_options[dialect.name]["where"]
        if _bare(found) != _bare(expected):
            yield f"{table.name}: index {index.name} where {found}, should be where {expected}"


def _missing_triggers(connection: Connection) -> Iterable[str]:
    dialect = connection.dialect.name
    present = set(connection.scalars(text(_READ_TRIGGERS[dialect])))
    return (f"state_history: trigger {name} missing" for name in sorted(_TRIGGERS[dialect] - present))


def _bare(expression: object) -> str:
    """`expression` without what databases add or drop when they show it: casts, case, space, quotes of names, brackets."""
    if expression is None:
        return ""
    without_casts = re.sub(r"::(character varying|timestamp with(out)? time zone|\w+)", "", str(expression))
    return re.sub(r'[\s()"]', "", without_casts).lower()
