"""The whole search, plan by plan, and what it found as a table: `docs/model.md` holds one, and `make model` prints one."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

from .search import Found, search
from .shapes import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HEADER", "row", "search_all"]

HEADER: Final = "| plan | states | transitions | seconds |\n|---|---:|---:|---:|"


def search_all() -> Iterator[tuple[str, Found]]:
    """Search every plan, as many at once as there are processors; each with its name, in the order of `shapes`."""
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as processes:
        yield from zip(ALL, processes.map(_search, ALL), strict=True)


def row(name: str, found: Found) -> str:
    """One line of the table."""
    return f"| {name} | {found.states:,} | {found.transitions:,} | {found.seconds:.1f} |"


def _search(name: str) -> Found:
    return search(ALL[name])
