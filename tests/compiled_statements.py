"""Statements compiled once for all the engines of a test process: each test has an engine, and compiling is most of its time."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.util import LRUCache

__all__ = ["SHARED_COMPILATION"]


class _CompiledStatements(LRUCache[Any, Any]):
    """As an engine's own cache, but for the place of the engine's dialect in the keys, which is that of its kind."""

    def get(self, key: Any, default: Any = None) -> Any:
        """What was compiled for an engine of this kind."""
        return super().get(_by_kind(key), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep it for all engines of the kind."""
        super().__setitem__(_by_kind(key), value)


def _by_kind(key: Any) -> Any:
    dialect, *rest = key
    return type(dialect), *rest


SHARED_COMPILATION: Final = {"execution_options": {"compiled_cache": _CompiledStatements(2000)}}
"""Options for `open_database`."""
