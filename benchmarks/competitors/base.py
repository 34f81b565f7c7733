"""What the workloads ask of whoever is measured, and the Celery worker that several of them have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import psutil

from benchmarks.measuring import CpuMeter, Timed, own_cpu_s, peak_memory_mib, reaped_cpu_s
from tests.servers import CeleryWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.site import Site

__all__ = ["DEADLINE_S", "WARM_UP_CHAINS", "WARM_UP_WIDTH", "CeleryCompetitor", "Competitor"]

DEADLINE_S = 900.0
"""How long one measurement may take before it counts as hung."""

# What each is warmed up with: enough for every process to have connected and imported what it needs.
WARM_UP_CHAINS = (4, 25)
WARM_UP_WIDTH = 50


class Competitor(ABC):
    """A system with its workers running, between `__enter__` and `__exit__`.

    Attributes:
        name: As the report calls it.
        site: The servers.
        only_chains: A fan-out would say nothing that another competitor's does not.
    """

    name: str
    only_chains: bool = False

    def __init__(self, site: Site) -> None:
        self.site = site

    @abstractmethod
    def chains(self, count: int, length: int) -> Timed:
        """Run so many workflows at once, each a chain of no-ops, and time them from the first enqueue to the last end.

        Raises:
            AssertionError: Something was left undone: there is no figure then.
        """

    @abstractmethod
    def fan_out(self, width: int) -> Timed:
        """Run one workflow of so many no-ops side by side and one that joins them; as `chains` otherwise."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While it is measured. Celery's workers, ours too, cost less than a hundredth of a core when they are idle."""
        yield

    def meter(self) -> CpuMeter:
        """Start to measure everybody who works for this competitor, the servers too."""
        return CpuMeter({**self.site.cpu_groups, **self.cpu_groups})

    @property
    @abstractmethod
    def cpu_groups(self) -> Mapping[str, Callable[[], float]]:
        """CPU counters of its own processes."""

    @abstractmethod
    def peak_memory_mib(self) -> Mapping[str, float]:
        """The most memory of each kind of its processes, of one process where there are several of a kind."""

    @abstractmethod
    def __enter__(self) -> Self:
        """Start the workers."""

    @abstractmethod
    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        """Stop them."""


class CeleryCompetitor(Competitor):
    """A competitor that runs in one Celery worker with a prefork pool."""

    def __init__(self, site: Site, app: str, *, children: int, env: Mapping[str, str]) -> None:
        super().__init__(site)
        node = f"{app.rpartition('.')[2]}-{children}-{id(self):x}"
        # Where errors are enough to know: a line per task would be measured too.
        self._worker = CeleryWorker(
            app,
            log=site.folder / f"{node}.log",
            concurrency=children,
            env=env,
            args=("--loglevel=WARNING",),
        )

    def __enter__(self) -> Self:
        """Start the worker, and warm up every process of it."""
        self._worker.launch()
        self.chains(*WARM_UP_CHAINS)
        self.fan_out(WARM_UP_WIDTH)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        """Stop it."""
        self._worker.__exit__(exc_type, *rest)

    @property
    def cpu_groups(self) -> Mapping[str, Callable[[], float]]:
        """MAIN, its pool, and the engine where there is one."""
        main, children, engines = self._processes()
        groups = {
            "MAIN": lambda: own_cpu_s(main),
            "children": lambda: sum(map(own_cpu_s, children)) + reaped_cpu_s(main),
        }
        if engines:
            groups["engine"] = lambda: sum(map(own_cpu_s, engines))
        return groups

    def peak_memory_mib(self) -> Mapping[str, float]:
        """Of MAIN, the greatest of its pool, and the engine."""
        main, children, engines = self._processes()
        kinds = {"MAIN": [main], "child": children, "engine": engines}
        return {kind: max(map(peak_memory_mib, processes)) for kind, processes in kinds.items() if processes}

    def _processes(self) -> tuple[psutil.Process, list[psutil.Process], list[psutil.Process]]:
        main = psutil.Process(self._worker.pid)
        below = main.children(recursive=True)
        engines = [process for process in below if "interlock.worker.engine" in process.cmdline()]
        return main, [process for process in below if process not in engines], engines
