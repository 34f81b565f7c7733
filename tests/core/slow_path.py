"""Has everything go by the slow path, as on SQLite."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from interlock.core.attempts.fast_path import FastPath, Verdict


def slow_path() -> Any:
    """A context manager in which the fast path finds nothing plain."""
    return patch.multiple(
        FastPath,
        claim=lambda *_: Verdict.NOT_PLAIN,
        complete=lambda *_: Verdict.NOT_PLAIN,
    )
