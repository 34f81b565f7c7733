"""Joins the measurements: modules to one shard's part, parts to the metrics of the library."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from .measure import FunctionRow, Measurement, ModuleRow, measure
from .syntax import REFUSALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .sources import Shard, Source

EXTREMES = 12
"""How many functions a list of extremes holds; a part's too, for all may be in one shard."""

SUMMED = (
    "bytes",
    "lines",
    "classes",
    "functions",
    "async_functions",
    "complexity",
    "documentable",
    "documented",
    "annotatable",
    "annotated",
    "bare_excepts",
    "notes",
)
"""The fields of a module's row that a package, and the library, have the sum of."""


class Refused(TypedDict):
    """A file that the parser does not take."""

    path: str
    line: int
    """0 where the parser names none."""
    error: str


class ImportEdge(TypedDict):
    """That a package imports something of another."""

    importer: str
    target: str
    eager: bool
    """At least once when it is loaded, not only inside functions."""


class Part(TypedDict):
    """The result of one parse step."""

    modules: list[list[Any]]
    """Rows in the order of `ModuleRow`'s fields."""
    functions: list[list[Any]]
    """The most complex and the longest functions, in the order of `FunctionRow`'s fields."""
    bands: dict[str, int]
    """Functions in each band of complexity."""
    eager: dict[str, list[str]]
    """What each package imports when it is loaded."""
    deferred: dict[str, list[str]]
    """What each package imports inside functions."""
    refused: list[Refused]


class Metrics(TypedDict):
    """The result of the join."""

    totals: dict[str, int]
    """The sums of `SUMMED`, and `modules`, `packages`, `peak_complexity`, `refused`."""
    packages: list[dict[str, Any]]
    """For each top-level name `package`, `modules`, the sums, and `peak_complexity`; by name."""
    modules: list[list[Any]]
    complex: list[list[Any]]
    long: list[list[Any]]
    bands: dict[str, int]
    imports: list[ImportEdge]
    refused: list[Refused]


def audit(shard: Shard) -> Part:
    """Measures every module of a shard; a file that the parser refuses is named, and is no error.

    Raises:
        OSError: A listed file cannot be read (this worker has another interpreter than the one
            that made the list).
    """
    measured: list[Measurement] = []
    refused: list[Refused] = []
    for source in shard["sources"]:
        content = Path(shard["root"], source["path"]).read_bytes()
        try:
            measured.append(measure(source["module"], source["path"], content))
        except REFUSALS as error:
            refused.append(_refused(source, error))
    return _part(measured, refused)


def merge(parts: Sequence[Part], expected_modules: int | None = None) -> Metrics:
    """Joins the parts of all shards.

    Args:
        parts: One per shard, in any order: the metrics are the same.
        expected_modules: How many modules the parts must account for, where that is known.

    Raises:
        ValueError: A module is missing, or was measured twice.
    """
    rows = sorted(ModuleRow(*row) for part in parts for row in part["modules"])
    refused = sorted((item for part in parts for item in part["refused"]), key=lambda item: item["path"])
    _check(rows, refused, expected_modules)
    packages = _packages(rows)
    functions = [FunctionRow(*row) for part in parts for row in part["functions"]]
    return Metrics(
        totals=_sum(rows) | {"packages": len(packages), "refused": len(refused)},
        packages=packages,
        modules=[list(row) for row in rows],
        complex=[list(row) for row in most_complex(functions)],
        long=[list(row) for row in longest(functions)],
        bands=dict(sorted(sum((Counter(part["bands"]) for part in parts), Counter()).items())),
        imports=_edges(parts, known={row["package"] for row in packages} | set(sys.stdlib_module_names)),
        refused=refused,
    )


def most_complex(functions: Iterable[FunctionRow]) -> list[FunctionRow]:
    """Returns the most complex functions, the longer first where they tie."""
    order = sorted(functions, key=lambda row: (-row.complexity, -row.lines, row.path, row.line))
    return order[:EXTREMES]


def longest(functions: Iterable[FunctionRow]) -> list[FunctionRow]:
    """Returns the functions with most lines."""
    return sorted(functions, key=lambda row: (-row.lines, row.path, row.line))[:EXTREMES]


def _part(measured: list[Measurement], refused: list[Refused]) -> Part:
    functions = [function for item in measured for function in item.functions]
    return Part(
        modules=[list(item.row) for item in measured],
        functions=[list(row) for row in sorted({*most_complex(functions), *longest(functions)})],
        bands=dict(sum((item.bands for item in measured), Counter())),
        eager=_imports(measured, deferred=False),
        deferred=_imports(measured, deferred=True),
        refused=refused,
    )


def _imports(measured: Iterable[Measurement], *, deferred: bool) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for item in measured:
        targets = {row.target for row in item.imports if row.deferred is deferred}
        found.setdefault(_package(item.row), set()).update(targets)
    return {package: sorted(targets) for package, targets in sorted(found.items()) if targets}


def _refused(source: Source, error: Exception) -> Refused:
    line = error.lineno if isinstance(error, SyntaxError) else None
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return Refused(path=source["path"], line=line or 0, error=": ".join(filter(None, (type(error).__name__, said))))


def _check(rows: list[ModuleRow], refused: list[Refused], expected: int | None) -> None:
    twice = sorted(name for name, count in Counter(row.module for row in rows).items() if count > 1)
    if twice:
        raise ValueError(f"measured more than once: {', '.join(twice)}")
    if expected is not None and len(rows) + len(refused) != expected:
        raise ValueError(
            f"{len(rows) + len(refused)} modules were measured, and {expected} listed: a shard's part is missing"
        )


def _packages(rows: Iterable[ModuleRow]) -> list[dict[str, Any]]:
    grouped: dict[str, list[ModuleRow]] = {}
    for row in rows:
        grouped.setdefault(_package(row), []).append(row)
    return [{"package": package, **_sum(grouped[package])} for package in sorted(grouped)]


def _sum(rows: Sequence[ModuleRow]) -> dict[str, int]:
    sums = {name: sum(getattr(row, name) for row in rows) for name in SUMMED}
    return {
        "modules": len(rows),
        **sums,
        "peak_complexity": max((row.peak_complexity for row in rows), default=0),
    }


def _package(row: ModuleRow) -> str:
    return row.module.partition(".")[0]


def _edges(parts: Sequence[Part], known: set[str]) -> list[ImportEdge]:
    eager = set(_pairs(part["eager"] for part in parts))
    every = eager | set(_pairs(part["deferred"] for part in parts))
    return [
        ImportEdge(importer=importer, target=target, eager=(importer, target) in eager)
        for importer, target in sorted(every)
        if target in known
    ]


def _pairs(imports: Iterable[dict[str, list[str]]]) -> Iterator[tuple[str, str]]:
    for by_importer in imports:
        for importer, targets in by_importer.items():
            yield from ((importer, target) for target in targets)
