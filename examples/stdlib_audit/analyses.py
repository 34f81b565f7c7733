"""The three analyses: where the complexity is, who imports whom, and what is documented."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from .complexity import BANDS, LAST_BAND
from .measure import FunctionRow, ModuleRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .collect import ImportEdge

HOT_SPOTS = 20
MOST_PACKAGES = 20
MINIMUM_DOCUMENTABLE = 20
"""A package with fewer public names says nothing with its percentage."""


class ComplexityAnalysis(TypedDict):
    """Where the complexity is."""

    bands: list[list[Any]]
    """Name of the band and number of functions, from simple to complex, empty bands too."""
    points: list[list[Any]]
    """Module, lines, sum of complexity; modules without functions are left out."""
    functions: list[dict[str, Any]]
    """The most complex: `function`, `complexity`, `lines`, `path`, `line`."""
    longest: list[dict[str, Any]]
    mean: float
    """Over all functions; 0.0 without any."""


class ImportAnalysis(TypedDict):
    """Who imports whom, among top-level packages and modules."""

    hot_spots: list[dict[str, Any]]
    """The most connected, imports of both kinds counted: `package`, `fan_in` (packages that import
    it), `fan_out` (packages that it imports)."""
    edges: int
    deferred_edges: int
    """Those where every import is inside a function."""
    cycles: list[list[str]]
    """Packages that reach each other by imports made at load, largest group first."""


class DocumentationAnalysis(TypedDict):
    """What is documented and annotated."""

    docstring_share: float
    """Of the public names, 0 to 1."""
    annotation_share: float
    packages: list[dict[str, Any]]
    """Those with most names: `package`, `share`, `documented`, `documentable`; best first."""
    undocumented: list[dict[str, Any]]
    """The same of the packages that miss most docstrings, in number."""


def analyse_complexity(
    modules: Iterable[Sequence[Any]],
    bands: Mapping[str, int],
    functions: Iterable[Sequence[Any]],
    longest: Iterable[Sequence[Any]],
) -> ComplexityAnalysis:
    """Finds where the complexity is; the arguments are fields of `Metrics`."""
    rows = [ModuleRow(*row) for row in modules]
    count = sum(row.functions for row in rows)
    return ComplexityAnalysis(
        bands=[[name, bands.get(name, 0)] for name in (*(name for _, name in BANDS), LAST_BAND)],
        points=[[row.module, row.lines, row.complexity] for row in rows if row.functions],
        functions=[FunctionRow(*row)._asdict() for row in functions],
        longest=[FunctionRow(*row)._asdict() for row in longest],
        mean=sum(row.complexity for row in rows) / count if count else 0.0,
    )


def analyse_imports(imports: Sequence[ImportEdge]) -> ImportAnalysis:
    """Finds the hot spots and the cycles of the import graph."""
    fan_in: dict[str, int] = {}
    fan_out: dict[str, int] = {}
    for edge in imports:
        fan_out[edge["importer"]] = fan_out.get(edge["importer"], 0) + 1
        fan_in[edge["target"]] = fan_in.get(edge["target"], 0) + 1
    names = sorted(
        fan_in.keys() | fan_out.keys(),
        key=lambda name: (-fan_in.get(name, 0) - fan_out.get(name, 0), name),
    )
    return ImportAnalysis(
        hot_spots=[
            {"package": name, "fan_in": fan_in.get(name, 0), "fan_out": fan_out.get(name, 0)}
            for name in names[:HOT_SPOTS]
        ],
        edges=len(imports),
        deferred_edges=sum(not edge["eager"] for edge in imports),
        cycles=import_cycles(imports),
    )


def import_cycles(imports: Iterable[ImportEdge]) -> list[list[str]]:
    """Returns the groups of packages that import each other at load, directly or through others.

    Such a group has to be loaded as one, and works only because of the order of its statements.
    """
    targets: dict[str, set[str]] = {}
    for edge in imports:
        if edge["eager"]:
            targets.setdefault(edge["importer"], set()).add(edge["target"])
    reached = {name: _reachable(name, targets) for name in targets}
    groups = {
        tuple(sorted(other for other in reach if name in reached.get(other, ())))
        for name, reach in reached.items()
        if name in reach
    }
    return sorted((list(group) for group in groups), key=lambda group: (-len(group), group))


def analyse_documentation(packages: Sequence[Mapping[str, Any]], totals: Mapping[str, int]) -> DocumentationAnalysis:
    """Finds what is documented and annotated; the arguments are fields of `Metrics`."""
    rows = [
        {
            "package": row["package"],
            "share": row["documented"] / row["documentable"],
            "documented": row["documented"],
            "documentable": row["documentable"],
        }
        for row in packages
        if row["documentable"] >= MINIMUM_DOCUMENTABLE
    ]
    largest = sorted(rows, key=lambda row: (-row["documentable"], row["package"]))[:MOST_PACKAGES]
    missing = sorted(rows, key=lambda row: (row["documented"] - row["documentable"], row["package"]))
    return DocumentationAnalysis(
        docstring_share=_share(totals["documented"], totals["documentable"]),
        annotation_share=_share(totals["annotated"], totals["annotatable"]),
        packages=sorted(largest, key=lambda row: (-row["share"], row["package"])),
        undocumented=missing[:MOST_PACKAGES],
    )


def _reachable(start: str, targets: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    pending = [start]
    while pending:
        fresh = targets.get(pending.pop(), set()) - found
        found |= fresh
        pending.extend(fresh)
    return found


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
