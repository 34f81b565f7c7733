"""What a person sees: progress on a terminal or in plain lines, and at the end a table and what was violated."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.results import keep_result

from .schedule import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Board", "Counts", "Summary"]

_LINE_EVERY_S = 10.0
_DRAW_EVERY_S = 0.25
_PIPE_WIDTH = 200


@dataclass(frozen=True, slots=True)
class Counts:
    """How far a run is."""

    workflows: int
    enqueued: int
    ended: int
    steps: int
    faults: int
    planned: int

    def __str__(self) -> str:
        return (
            f"enqueued {self.enqueued}/{self.workflows}, ended {self.ended}, "
            f"steps completed {self.steps}, faults {self.faults}/{self.planned}"
        )


class Board:
    """Lines for what happens, and a status that is redrawn on a terminal and repeated now and then in a pipe."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        self._console = Console(highlight=False, markup=False, emoji=False, width=None if terminal else _PIPE_WIDTH)
        self._live = Live(console=self._console, auto_refresh=False, transient=True) if terminal else None
        self._began = time.monotonic()
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._began = time.monotonic()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def line(self, text: str = "") -> None:
        """Print a line."""
        self._console.print(text, soft_wrap=True)

    def table(self, table: Table) -> None:
        """Print a table."""
        self._console.print(table)

    def show(self, counts: object) -> None:
        """Say how far it is."""
        now = time.monotonic()
        if now - self._shown_at < (_DRAW_EVERY_S if self._live is not None else _LINE_EVERY_S):
            return
        self._shown_at = now
        text = f"{now - self._began:6.1f} s  {counts}"
        if self._live is None:
            self.line(text)
        else:
            self._live.update(text, refresh=True)


@dataclass(frozen=True, slots=True)
class Summary:
    """A run of chaos in figures.

    Attributes:
        command: What to type to see it again.
        faults: How many of each kind.
        recovery_s: Longest recovery by kind, where something was broken by it.
        typical_s: Median recovery by kind.
        unexplained: Lost steps that no single fault explains for certain.
        workflows: How many were enqueued.
        statuses: How they ended.
        steps: Steps completed.
        bodies: Times that a body began.
        again: How many of them were for a step whose body had begun before.
        refused: How many of those because the body failed on purpose.
        changes: Changes that the subscribers received.
        repeated: Calls and commands that had to be repeated.
        duration_s: From the first enqueue to the end of the last workflow.
        skipped: Faults that found nothing to hit.
        oddities: What nobody asked for.
        violations: What must not be.
    """

    command: str
    faults: Mapping[str, int]
    recovery_s: Mapping[str, float]
    typical_s: Mapping[str, float]
    unexplained: int
    workflows: int
    statuses: Mapping[str, int]
    steps: int
    bodies: int
    again: int
    refused: int
    changes: int
    repeated: int
    duration_s: float
    skipped: int
    oddities: Sequence[str]
    violations: Sequence[str]

    def show(self, board: Board) -> None:
        """Print it."""
        table = Table("fault", title="faults injected", title_justify="left")
        for title in ("times", "recovery, median", "longest"):
            table.add_column(title, justify="right")
        for kind in Kind:
            times = (f"{values[kind]:.1f} s" if kind in values else "-" for values in (self.typical_s, self.recovery_s))
            table.add_row(str(kind), str(self.faults.get(kind, 0)), *times)
        table.add_row("in all", str(sum(self.faults.values())), "", "")
        board.table(table)
        ends = ", ".join(f"{count} {status}" for status, count in sorted(self.statuses.items()))
        board.line(f"workflows: {self.workflows} ({ends}) in {self.duration_s:.0f} s")
        board.line(
            f"steps completed: {self.steps}; bodies run: {self.bodies}, again {self.again}, "
            f"of these {self.refused} because the body failed on purpose",
        )
        board.line(f"changes received by subscribers: {self.changes}; commands and calls repeated: {self.repeated}")
        if self.unexplained:
            board.line(f"lost steps that no single fault explains, not in the times above: {self.unexplained}")
        for text in self.oddities:
            board.line(f"odd: {text}")
        if self.skipped:
            board.line(f"faults that found nothing to hit: {self.skipped}")
        for text in self.violations:
            board.line(f"VIOLATION: {text}")
        verdict = "nothing lost, nothing done twice" if not self.violations else f"{len(self.violations)} violations"
        board.line(f"{verdict}; again: {self.command}")

    def keep(self) -> None:
        """Add it to the results that docs/reliability.md is made of, where somebody collects them."""
        # Not by `asdict`, which makes a Counter of a Counter's pairs.
        keep_result("chaos", {each.name: getattr(self, each.name) for each in fields(self)})
