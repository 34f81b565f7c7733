"""Chains and fan-outs of steps that do nothing: what the machinery costs, in turns with whoever else can run them."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.competitors.celery_canvas import CanvasCompetitor, FloorCompetitor
from benchmarks.competitors.interlock_steps import InterlockCompetitor
from benchmarks.competitors.peer import DbosPeer, DirectorPeer, ProcrastinatePeer
from benchmarks.machine import flush_ms
from benchmarks.measuring import Sample, Timed
from benchmarks.turns import turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.competitors.base import Competitor
    from benchmarks.options import Options, Sizes
    from benchmarks.site import Site

__all__ = ["Flow", "flows", "measure_flows"]


_CHAINS: Final = frozenset({"chain", "long", "lone"})


@dataclass(frozen=True, slots=True)
class Flow:
    """One shape of work.

    Attributes:
        name: The workload's.
        title: What it is.
        steps: How many steps it has in all.
        children: Of the pool.
        run: Has a competitor do it once.
    """

    name: str
    title: str
    steps: int
    children: int
    run: Callable[[Competitor], Timed]


def flows(sizes: Sizes) -> list[Flow]:
    """All shapes, those of one pool size together."""
    chains, length = sizes.chain_runs, sizes.chain_length
    long_chains, long_length, width = sizes.long_runs, sizes.long_length, sizes.width
    fan_outs = [
        Flow(
            "fanout" if children == 2 else f"fanout{children}",  # noqa: PLR2004 - the pool that all others have
            f"fan-out of {width:,} and a join, {children} children",
            width + 1,
            children,
            lambda competitor: competitor.fan_out(width),
        )
        for children in (2, 4, 16)
    ]
    return [
        Flow(
            "chain",
            f"{chains} workflows, each a chain of {length}",
            chains * length,
            2,
            lambda competitor: competitor.chains(chains, length),
        ),
        Flow(
            "long",
            f"{long_chains} workflows, each a chain of {long_length:,}",
            long_chains * long_length,
            2,
            lambda competitor: competitor.chains(long_chains, long_length),
        ),
        Flow("lone", f"one chain of {length} alone", length, 2, lambda competitor: competitor.chains(1, length)),
        *fan_outs,
    ]


def measure_flows(site: Site, options: Options, wanted: Sequence[Flow]) -> Iterator[Sample]:
    """Measure in turns; the workers of all competitors are up all the time, and idle but for the one whose turn it is."""
    for children in dict.fromkeys(flow.children for flow in wanted):
        with ExitStack() as stack:
            competitors = [stack.enter_context(make()) for make in _competitors(site, children, options)]
            for flow in wanted:
                if flow.children == children:
                    yield from _rounds(site, flow, competitors, options.rounds)
            if children == 2:  # noqa: PLR2004 - the pool that has done all the work
                for competitor in competitors:
                    yield Sample("memory", competitor.name, 1, competitor.peak_memory_mib())


def _rounds(site: Site, flow: Flow, competitors: Sequence[Competitor], rounds: int) -> Iterator[Sample]:
    chain = flow.name in _CHAINS
    for number, competitor in turns([one for one in competitors if chain or not one.only_chains], rounds):
        yield Sample("flush", "the disk", number, {"ms": flush_ms(site.folder)})
        gc.collect()  # what the one before has left is not the next one's cost
        with competitor.turn():
            timed = flow.run(competitor)
        figures = {
            "seconds": timed.seconds,
            "steps_per_s": flow.steps / timed.seconds,
            "ms_per_step": timed.seconds / flow.steps * 1000,
            "cpu_ms_per_step": sum(timed.cpu_s.values()) / flow.steps * 1000,
            "steps": flow.steps,
        }
        yield Sample(flow.name, competitor.name, number, figures, timed.cpu_s)


def _competitors(site: Site, children: int, options: Options) -> list[Callable[[], Competitor]]:
    ours, canvas = partial(InterlockCompetitor, site, "PostgreSQL", children), partial(CanvasCompetitor, site, children)
    through = [partial(ours, run_through=True)] if children == 2 else []  # noqa: PLR2004 - the pool that chains are run in
    if options.kind == "peers":
        return [
            *(ours, *through, canvas, partial(DbosPeer, site)),
            *(partial(DirectorPeer, site, options.sizes), partial(ProcrastinatePeer, site)),
        ]
    sqlite = [partial(InterlockCompetitor, site, "SQLite", children)] if options.kind == "full" else []
    return [ours, *through, *sqlite, canvas, partial(FloorCompetitor, site, children)]
