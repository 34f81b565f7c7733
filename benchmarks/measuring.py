"""Time, CPU and memory of what runs: differences of counters that the kernel keeps, and their statistics."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "CpuMeter",
    "Sample",
    "Spread",
    "Timed",
    "own_cpu_s",
    "peak_memory_mib",
    "percentile",
    "reaped_cpu_s",
    "tree_cpu_s",
]


@dataclass(frozen=True, slots=True)
class Timed:
    """How long something took, and the CPU seconds that each group of processes used meanwhile."""

    seconds: float
    cpu_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one subject in one round.

    Attributes:
        workload: Which measurement, with what it was measured at: `fanout/4`.
        subject: Who was measured.
        round: From 1.
        figures: The numbers, each named with its unit.
        cpu_s: CPU seconds by group of processes.
    """

    workload: str
    subject: str
    round: int
    figures: Mapping[str, float]
    cpu_s: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """From JSON."""
        return cls(**document)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of some rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which so many percent lie; the nearest one measured, never one in between."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


class CpuMeter:
    """CPU seconds that groups of processes use from now on."""

    def __init__(self, groups: Mapping[str, Callable[[], float]]) -> None:
        """Start to measure.

        Args:
            groups: By the group's name, what reads its counter: `own_cpu_s`, `tree_cpu_s`.
        """
        self._groups = groups
        self._before = self._read()

    def used(self) -> dict[str, float]:
        """Seconds by group since the start."""
        now = self._read()
        return {name: round(now[name] - self._before[name], 3) for name in now}

    def _read(self) -> dict[str, float]:
        return {name: read() for name, read in self._groups.items()}


def own_cpu_s(process: psutil.Process) -> float:
    """CPU seconds of one process; none of one that is gone, which its parent's counter has (`reaped_cpu_s`)."""
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def reaped_cpu_s(process: psutil.Process) -> float:
    """CPU seconds of the children that have ended and were waited for."""
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


def tree_cpu_s(root: psutil.Process) -> float:
    """CPU seconds of a process and of everything that is or was below it, such as a server's backends."""
    return own_cpu_s(root) + reaped_cpu_s(root) + sum(map(own_cpu_s, root.children(recursive=True)))


def peak_memory_mib(process: psutil.Process) -> float:
    """The most memory that the process ever had resident, shared pages included."""
    for line in Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    msg = f"the kernel keeps no peak for process {process.pid}"
    raise OSError(msg)
