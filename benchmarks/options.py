"""What is measured, how large and how often."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["RESULTS", "ROOT", "Options", "Sizes", "parse"]

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "benchmarks" / "results"

ENOUGH_ROUNDS: Final = 3
KINDS: Final = {
    "full": (
        *("chain", "long", "lone", "fanout", "fanout4", "fanout16"),
        *("enqueue", "latency", "cascade", "recovery", "aging"),
    ),
    "quick": ("chain", "lone", "fanout"),
    "peers": ("chain", "lone", "fanout"),
}
"""The measurements of each kind of run, in order."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large each measurement is."""

    chain_runs: int = 20
    chain_length: int = 100
    long_runs: int = 5
    long_length: int = 1000
    width: int = 1000
    small_runs: int = 100
    many: int = 10_000
    history: tuple[int, ...] = (10_000, 1_000_000, 5_000_000)

    def scaled(self, factor: float) -> Sizes:
        """All of them smaller, for trying the harness itself."""
        numbers = {name: getattr(self, name) for name in self.__slots__ if name != "history"}
        return Sizes(
            **{name: max(2, round(number * factor)) for name, number in numbers.items()},
            history=tuple(max(200, round(rows * factor)) for rows in self.history),
        )


@dataclass(frozen=True, slots=True)
class Options:
    """One run of the harness.

    Attributes:
        kind: `full`, `quick` or `peers`.
        rounds: How often each measurement is made.
        only: The measurements to make, in order.
        sizes: How large they are.
        results: The folder for the raw figures.
        page: The document to write; None to print the report only.
    """

    kind: str
    rounds: int
    only: tuple[str, ...]
    sizes: Sizes = field(default_factory=Sizes)
    results: Path = RESULTS
    page: Path | None = None


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line.

    Raises:
        SystemExit: It has faults, which are printed; or it asks for help.
    """
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure Interlock beside what others use.")
    parser.add_argument("kind", choices=KINDS, help="which set of measurements")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is made (3)")
    parser.add_argument("--only", default="", help="some of them, separated by commas")
    parser.add_argument("--scale", type=float, default=1.0, help="smaller ones, for trying the harness")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the raw figures")
    parser.add_argument("--page", type=Path, help="document to write (docs/performance.md, of a whole run)")
    given = parser.parse_args(arguments)
    known = KINDS[given.kind]
    only = tuple(name for name in given.only.split(",") if name) or known
    if unknown := set(only) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; a {given.kind} run has {', '.join(known)}")
    # A document with figures of one round would say nothing of how they spread.
    whole = given.rounds >= ENOUGH_ROUNDS and given.kind != "quick" and only == known and given.scale == 1
    page = given.page or (ROOT / "docs" / "performance.md" if whole else None)
    return Options(given.kind, given.rounds, only, Sizes().scaled(given.scale), given.results, page)
