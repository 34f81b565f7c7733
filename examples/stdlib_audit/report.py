"""Renders the metrics as one HTML file that needs nothing else: styles and plots are inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import plots

if TYPE_CHECKING:
    from .analyses import ComplexityAnalysis, DocumentationAnalysis, ImportAnalysis
    from .collect import Refused

FIRST_PACKAGES = 25
"""Rows of the table that are open from the start."""


class Findings(TypedDict):
    """What the report shows."""

    python: str
    root: str
    totals: dict[str, int]
    packages: list[dict[str, Any]]
    refused: list[Refused]
    complexity: ComplexityAnalysis
    imports: ImportAnalysis
    documentation: DocumentationAnalysis


def render(findings: Findings) -> str:
    """Returns the page. The same findings give the same text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    complexity, imports = findings["complexity"], findings["imports"]
    packages = sorted(findings["packages"], key=lambda row: (-row["lines"], row["package"]))
    return environment.get_template("report.html.j2").render(
        **{**findings, "packages": packages},
        first_packages=FIRST_PACKAGES,
        size_plot=plots.size_against_complexity([(*point,) for point in complexity["points"]]),
        bands_plot=plots.complexity_bands([(*band,) for band in complexity["bands"]]),
        imports_plot=plots.import_hot_spots(imports["hot_spots"]),
        docstrings_plot=plots.docstring_coverage(findings["documentation"]["packages"]),
    )


def write(findings: Findings, path: str) -> Path:
    """Writes the page to `path`, making its folder.

    Returns:
        The file's absolute path.
    """
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render(findings), encoding="utf-8")
    return target
