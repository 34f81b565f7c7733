"""The report's plots, as SVG to put inside the page.

Text stays text and colours are the page's CSS variables, so that one drawing fits light, dark and
paper. The same figures give the same bytes.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

INK, MUTED, GRID, ACCENT, SECOND = "#010101", "#020202", "#030303", "#040404", "#050505"
"""Stand-ins that become CSS variables."""
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", ACCENT: "--accent", SECOND: "--second"}

LABELLED = 6
"""How many dots of each kind get a name: the most complex, the least dense, the densest."""
LETTER_WIDTH = 7.0
"""In pixels at the figure's 100 dpi, for a 9 point font, rather too wide than too narrow."""
COVERED = 2
"""How many dots a name may cover."""
OUTLIER_LINES = 300
"""A shorter module is far off the trend too easily."""

STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


def size_against_complexity(points: Sequence[tuple[str, int, int]]) -> Markup:
    """Draws a dot per module: lines across, complexity up, both logarithmic.

    Args:
        points: Module, lines (at least 1), sum of complexity (at least 1).
    """
    with mpl.rc_context(STYLE | {"svg.hashsalt": "size", "ytick.labelcolor": MUTED}):
        figure, axes = _canvas(width=9.2, height=5.0)
        axes.set(xscale="log", yscale="log", xlabel="lines", ylabel="cyclomatic complexity, summed")
        lines = [point[1] for point in points]
        axes.scatter(
            lines,
            [point[2] for point in points],
            s=26,
            color=ACCENT,
            alpha=0.45,
            linewidths=0,
        )
        _plain_numbers(axes)
        figure.draw_without_rendering()  # labels need to know where the dots will be
        _name_dots(axes, points)
        return _svg(figure, "size", "Each module's lines of code against its complexity")


def complexity_bands(bands: Sequence[tuple[str, int]]) -> Markup:
    """Draws how many functions are how complex; `bands` has names and numbers, simplest first."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": "bands"}):
        figure, axes = _canvas(width=9.2, height=2.1)
        total = sum(count for _, count in bands) or 1
        bars = axes.barh([name for name, _ in bands], [count for _, count in bands], color=ACCENT)
        axes.bar_label(
            bars,
            labels=[f"{count:,} ({count / total:.1%})" for _, count in bands],
            padding=5,
            fontsize=9,
        )
        axes.set_xlim(right=1.12 * max(1, *(count for _, count in bands)))
        _bars_only(axes)
        return _svg(figure, "bands", "Functions by cyclomatic complexity")


def import_hot_spots(hot_spots: Sequence[Mapping[str, Any]]) -> Markup:
    """Draws the most connected packages: who imports them right, what they import left.

    Args:
        hot_spots: `package`, `fan_in`, `fan_out`; most connected first.
    """
    with mpl.rc_context(STYLE | {"svg.hashsalt": "imports"}):
        figure, axes = _canvas(width=9.2, height=1.2 + 0.27 * len(hot_spots))
        names = [spot["package"] for spot in hot_spots]
        incoming = axes.barh(names, [spot["fan_in"] for spot in hot_spots], color=ACCENT)
        outgoing = axes.barh(names, [-spot["fan_out"] for spot in hot_spots], color=SECOND)
        axes.bar_label(incoming, padding=4, fontsize=9)
        axes.bar_label(
            outgoing,
            labels=[str(spot["fan_out"] or "") for spot in hot_spots],
            padding=4,
            fontsize=9,
        )
        axes.margins(x=0.08, y=0.02)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        _bars_only(axes)
        return _svg(figure, "imports", "Packages by how many import them and how many they import")


def docstring_coverage(packages: Sequence[Mapping[str, Any]]) -> Markup:
    """Draws the share of names with a docstring; `packages` has `package` and `share`."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": "docstrings"}):
        figure, axes = _canvas(width=4.5, height=0.7 + 0.27 * len(packages))
        names = [row["package"] for row in packages]
        axes.barh(names, [1.0] * len(names), color=GRID)
        bars = axes.barh(names, [row["share"] for row in packages], color=SECOND)
        labels = [f"{row['share']:.0%}" for row in packages]
        for bar, label in zip(bars, labels, strict=True):
            axes.annotate(
                label,
                (1.0, bar.get_y() + bar.get_height() / 2),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.margins(y=0.02)
        _bars_only(axes)
        return _svg(figure, "docstrings", "Share of public names with a docstring, by package")


def _canvas(*, width: float, height: float) -> tuple[Figure, Axes]:
    """Makes a figure without pyplot, which keeps every figure and looks for a screen."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.subplots()
    axes.patch.set_alpha(0.0)
    return figure, axes


def _bars_only(axes: Axes) -> None:
    """Bars carry their numbers, so the numeric axis goes."""
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.xaxis.set_visible(False)
    axes.spines[:].set_visible(False)


def _name_dots(axes: Axes, points: Sequence[tuple[str, int, int]]) -> None:
    """Names the remarkable modules, where there is room for the name beside the dot."""
    place = axes.transData.transform
    dots = [(float(dot[0]), float(dot[1])) for dot in map(place, (point[1:] for point in points))]
    taken: list[Bbox] = []
    for name, x, y in _remarkable(points):
        dot_x, dot_y = place((x, y))
        width = LETTER_WIDTH * len(name)
        for side, left in (("right", dot_x - width - 8), ("left", dot_x + 8)):
            box = Bbox.from_bounds(left, dot_y - 7, width, 14)
            if not any(box.overlaps(other) for other in taken) and _is_free(box, dots):
                taken.append(box)
                _name_dot(axes, name, (x, y), side)
                break


def _is_free(box: Bbox, dots: Sequence[tuple[float, float]]) -> bool:
    return sum(box.contains(*dot) for dot in dots) <= COVERED


def _name_dot(axes: Axes, name: str, at: tuple[int, int], side: str) -> None:
    axes.annotate(
        name,
        at,
        xytext=(-5 if side == "right" else 5, 0),
        textcoords="offset points",
        ha=side,
        va="center_baseline",
        fontsize=9,
    )


def _remarkable(points: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Returns the most complex modules, then the least dense and the densest of the longer ones."""
    by_complexity = sorted(points, key=lambda point: (-point[2], point[0]))
    by_density = sorted(
        (point for point in points if point[1] >= OUTLIER_LINES),
        key=lambda point: (-point[2] / point[1], point[0]),
    )
    return [*by_complexity[:LABELLED], *by_density[: -LABELLED - 1 : -1], *by_density[:LABELLED]]


def _plain_numbers(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _svg(figure: Figure, name: str, title: str) -> Markup:
    """Cuts the XML prologue, makes ids unique on the page, hands colours and fonts to CSS."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    label = f'<svg role="img" aria-label="{escape(title)}" '
    # Markup: matplotlib has escaped the names that it drew.
    return Markup(label + text.removeprefix("<svg "))  # noqa: S704
