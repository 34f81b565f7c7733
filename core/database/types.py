"""Column types and SQL functions that mean the same on SQLite and PostgreSQL.

Times are UTC and come from the database's clock at the statement (`clock()`), never from a worker's: workers' clocks
differ, and `now()` is the transaction's start, which runs against the order of `seq`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import JSON, DateTime, Float, String, TypeDecorator, Uuid, cast, literal
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Dialect
    from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["Identifier", "Json", "UtcDateTime", "clock", "earliest", "seconds_after", "seconds_between"]

SQLITE_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"

# `None` in a JSON column is SQL NULL ("nothing"); a step that returns None stores the JSON value null (JSON.NULL).
Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


class Identifier(TypeDecorator[str]):
    """A UUID as the string with hyphens: native on PostgreSQL, text on SQLite."""

    impl = String(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Choose the native type where there is one."""
        return dialect.type_descriptor(Uuid(as_uuid=False) if dialect.supports_native_uuid else String(36))

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Take UUID objects as well as their text; what is no UUID equals no id, instead of failing the query."""
        if value is None:
            return None
        text = str(value)
        return text if not dialect.supports_native_uuid or _is_uuid(text) else None


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime; SQLite keeps it as sortable text with microseconds."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - protocol
        """Refuse naive times: they mean something else on every machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            msg = f"{value!r} has no time zone"
            raise ValueError(msg)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - protocol
        """Give the time its zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _Clock(FunctionElement[datetime]):
    type = UtcDateTime()
    inherit_cache = True


class _SecondsAfter(FunctionElement[datetime]):
    type = UtcDateTime()
    inherit_cache = True


class _SecondsBetween(FunctionElement[float]):
    type = Float()
    inherit_cache = True


class _Earliest(FunctionElement[datetime]):
    type = UtcDateTime()
    inherit_cache = True


def clock() -> ColumnElement[datetime]:
    """The database's time at this statement."""
    return _Clock()


def seconds_after(seconds: float | ColumnElement[float], start: Any = None) -> ColumnElement[datetime]:
    """`start` (the database's time by default) plus `seconds`, which may be negative."""
    amount = cast(literal(float(seconds)), Float) if isinstance(seconds, (int, float)) else seconds
    return _SecondsAfter(clock() if start is None else start, amount)


def seconds_between(start: Any, end: Any) -> ColumnElement[float]:
    """Seconds from `start` to `end`."""
    return _SecondsBetween(start, end)


def earliest(*times: Any) -> ColumnElement[datetime]:
    """The smallest of `times` that is not NULL, or NULL."""
    return _Earliest(*times)


@compiles(_Clock, "postgresql")
def _clock_postgresql(element: _Clock, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ARG001 - the compiler's protocol
    return "clock_timestamp()"


@compiles(_Clock, "sqlite")
def _clock_sqlite(element: _Clock, compiler: SQLCompiler, **kw: Any) -> str:  # noqa: ARG001 - the compiler's protocol
    return SQLITE_NOW


@compiles(_SecondsAfter, "postgresql")
def _after_postgresql(element: _SecondsAfter, compiler: SQLCompiler, **kw: Any) -> str:
    start, seconds = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({start} + ({seconds}) * INTERVAL '1 second')"


@compiles(_SecondsAfter, "sqlite")
def _after_sqlite(element: _SecondsAfter, compiler: SQLCompiler, **kw: Any) -> str:
    start, seconds = (compiler.process(clause, **kw) for clause in element.clauses)
    # Joined with ||, because printf() would turn NULL, "no such timer", into zero seconds.
    return f"strftime('%Y-%m-%d %H:%M:%f000', {start}, ({seconds}) || ' seconds')"


@compiles(_SecondsBetween, "postgresql")
def _between_postgresql(element: _SecondsBetween, compiler: SQLCompiler, **kw: Any) -> str:
    start, end = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"extract(epoch FROM {end} - {start})"


@compiles(_SecondsBetween, "sqlite")
def _between_sqlite(element: _SecondsBetween, compiler: SQLCompiler, **kw: Any) -> str:
    start, end = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"((julianday({end}) - julianday({start})) * 86400.0)"


@compiles(_Earliest, "postgresql")
def _earliest_postgresql(element: _Earliest, compiler: SQLCompiler, **kw: Any) -> str:
    return f"LEAST({', '.join(compiler.process(clause, **kw) for clause in element.clauses)})"


@compiles(_Earliest, "sqlite")
def _earliest_sqlite(element: _Earliest, compiler: SQLCompiler, **kw: Any) -> str:
    # min() of SQLite is NULL as soon as one argument is; '~' sorts behind every digit.
    terms = ", ".join(f"coalesce({compiler.process(clause, **kw)}, '~')" for clause in element.clauses)
    return f"nullif(min({terms}), '~')"
