"""What the figures are held against; each target names its measurement, so that what was not measured is not passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .results import Results

__all__ = ["TARGETS", "Verdict", "judge"]

OURS = "Interlock, PostgreSQL"
THROUGH = f"{OURS}, run-through"
CANVAS = "Celery canvas, Redis results"
DBOS = "DBOS, PostgreSQL, 2 processes"
DIRECTOR = "celery-director, PostgreSQL"


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to reach.

    Attributes:
        title: In words.
        aim: The bound, as it is shown.
        figure: Computes what was reached from the results; None where it was not measured.
        reached: Whether a figure is good enough.
    """

    title: str
    aim: str
    figure: Callable[[Results], float | None]
    reached: Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a target was met."""

    title: str
    aim: str
    figure: float
    passed: bool


def judge(results: Results) -> list[Verdict]:
    """The targets of which there is a figure."""
    verdicts = []
    for target in TARGETS:
        figure = target.figure(results)
        if figure is not None:
            verdicts.append(Verdict(target.title, target.aim, figure, target.reached(figure)))
    return verdicts


def _ratio(workload: str, figure: str, rival: str = CANVAS, *, ours: str = OURS) -> Callable[[Results], float | None]:
    def compute(results: Results) -> float | None:
        spread = results.ratio(workload, ours, rival, figure)
        return None if spread is None else spread.median

    return compute


def _events_ms(results: Results) -> float | None:
    spread = results.spread("events_loaded", OURS, "p50_ms")
    return None if spread is None else spread.median


def _cost_of_age(results: Results) -> float | None:
    ages = results.subjects("aging")
    if not ages:
        return None
    spread = results.ratio("aging", ages[-1], ages[0], "transition_ms")
    return None if spread is None else spread.median


def _gain_of_length(results: Results) -> float | None:
    short, long = (_ratio(workload, "steps_per_s")(results) for workload in ("chain", "long"))
    return None if short is None or long is None else long / short


TARGETS = (
    Target(
        "chains of 100: throughput over Celery's `chain`",
        "≥ 1.1",
        _ratio("chain", "steps_per_s"),
        lambda value: value >= 1.1,  # noqa: PLR2004 - the aim, as beside it
    ),
    Target(
        "chains of 100 with run-through: throughput over Celery's `chain`",
        "≥ 3.0",
        _ratio("chain", "steps_per_s", ours=THROUGH),
        lambda value: value >= 3,  # noqa: PLR2004 - the aim, as beside it
    ),
    Target(
        "chains of 1,000: that ratio over the one at 100",
        "> 1.0",
        _gain_of_length,
        lambda value: value > 1,
    ),
    Target(
        "one chain alone: time per step over Celery's `chain`",
        "≤ 1.0",
        _ratio("lone", "ms_per_step"),
        lambda value: value <= 1,
    ),
    *(
        Target(
            f"fan-out and join, {children} children: time over Celery's `chord`",
            "≤ 0.9",
            _ratio(workload, "seconds"),
            lambda value: value <= 0.9,  # noqa: PLR2004 - as above
        )
        for workload, children in (("fanout", 2), ("fanout4", 4), ("fanout16", 16))
    ),
    Target(
        "milliseconds from a history row to a subscriber, under load: median",
        "< 20",
        _events_ms,
        lambda value: value < 20,  # noqa: PLR2004 - as above
    ),
    Target(
        "a transition at the longest history over one at the shortest",
        "≤ 1.5",
        _cost_of_age,
        lambda value: value <= 1.5,  # noqa: PLR2004 - as above
    ),
    Target(
        "chains of 100: throughput over DBOS",
        "≥ 1.0",
        _ratio("chain", "steps_per_s", DBOS),
        lambda value: value >= 1,
    ),
    Target(
        "chains of 100 with run-through: throughput over DBOS",
        "≥ 2.0",
        _ratio("chain", "steps_per_s", DBOS, ours=THROUGH),
        lambda value: value >= 2,  # noqa: PLR2004 - as above
    ),
    Target(
        "chains of 100: throughput over celery-director",
        "≥ 3.0",
        _ratio("chain", "steps_per_s", DIRECTOR),
        lambda value: value >= 3,  # noqa: PLR2004 - as above
    ),
)
