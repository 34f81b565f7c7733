"""The audit as plain Celery tasks: JSON in, JSON out, and no word about workflows.

`shared_task` binds them to whatever app the worker runs; without Interlock nothing here changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import shared_task

from . import analyses, collect, sources

if TYPE_CHECKING:
    from .report import Findings


@shared_task
def list_packages(shards: int, root: str | None = None) -> sources.Listing:
    """Lists the modules of the standard library, dealt out in shards of nearly equal bytes."""
    return sources.list_sources(shards, root)


@shared_task
def audit_shard(shard: sources.Shard) -> collect.Part:
    """Parses and measures the modules of one shard."""
    return collect.audit(shard)


@shared_task
def merge_metrics(parts: list[collect.Part], expected_modules: int | None = None) -> collect.Metrics:
    """Joins the parts; fails unless they account for `expected_modules`."""
    return collect.merge(parts, expected_modules)


@shared_task
def analyse_complexity(
    modules: list[list[Any]],
    bands: dict[str, int],
    functions: list[list[Any]],
    longest: list[list[Any]],
) -> analyses.ComplexityAnalysis:
    """Finds where the complexity is."""
    return analyses.analyse_complexity(modules, bands, functions, longest)


@shared_task
def analyse_imports(imports: list[collect.ImportEdge]) -> analyses.ImportAnalysis:
    """Finds hot spots and cycles of the import graph."""
    return analyses.analyse_imports(imports)


@shared_task
def analyse_documentation(
    packages: list[dict[str, Any]],
    totals: dict[str, int],
) -> analyses.DocumentationAnalysis:
    """Finds what is documented and annotated."""
    return analyses.analyse_documentation(packages, totals)


@shared_task
def write_report(metrics: Findings, path: str) -> dict[str, Any]:
    """Writes the HTML report and returns where it is, and its size in bytes."""
    from .report import write  # noqa: PLC0415 - matplotlib, in the one process that draws

    file = write(metrics, path)
    return {"path": str(file), "bytes": file.stat().st_size}
