"""Splits long lists of ids, so that each part fits into one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["chunked"]

T = TypeVar("T")

_CHUNK: Final = 5_000  # SQLite takes 32,766 parameters, PostgreSQL 65,535


def chunked(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """At most 5,000 ids at a time, in their order; nothing for none."""
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
