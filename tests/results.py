"""Figures of real runs, one line of JSON each, where somebody collects them for docs/reliability.md."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["VARIABLE", "keep_result"]

VARIABLE = "INTERLOCK_FAULT_RESULTS"
"""The environment variable that names the file; without it nothing is kept."""


def keep_result(kind: str, figures: dict[str, Any]) -> None:
    """Append one result with its day; lines of several processes do not mix, each being one short write."""
    path = os.environ.get(VARIABLE)
    if path:
        with Path(path).open("a") as results:
            results.write(json.dumps({"kind": kind, "on": f"{datetime.now(UTC):%Y-%m-%d}", **figures}) + "\n")
