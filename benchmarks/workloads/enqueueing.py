"""How fast a producer can enqueue, with no worker there: validation, storing every step, history, messages and events."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.competitors.celery_canvas import CanvasCompetitor, CanvasProducer
from benchmarks.deployment import KINDS, Deployment, chain_of, check_runs
from benchmarks.measuring import Sample, Timed
from benchmarks.turns import turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.options import Options
    from benchmarks.site import Site

__all__ = ["measure_enqueueing"]

SMALL = 3
"""Steps of a small workflow."""


@dataclass(frozen=True, slots=True)
class _Producer:
    """Somebody who can enqueue so many chains of a length."""

    name: str
    enqueue: Callable[[int, int], Timed]


def measure_enqueueing(site: Site, options: Options) -> Iterator[Sample]:
    """Workflows and steps that one producer enqueues in a second, large workflows and small ones."""
    sizes = options.sizes
    shapes = {"enqueue": (sizes.chain_runs, sizes.chain_length), "enqueue_small": (sizes.small_runs, SMALL)}
    with ExitStack() as stack:
        producers = [_interlock(site, stack.enter_context(Deployment(site, kind))) for kind in KINDS]
        canvas = CanvasProducer(site)
        stack.callback(canvas.close)
        producers.append(_celery(site, canvas))
        for producer in producers:
            producer.enqueue(2, SMALL)  # connects
        for workload, (count, length) in shapes.items():
            for number, producer in turns(producers, options.rounds):
                timed = producer.enqueue(count, length)
                figures = {
                    "workflows_per_s": count / timed.seconds,
                    "steps_per_s": count * length / timed.seconds,
                    "ms_per_workflow": timed.seconds / count * 1000,
                    "steps": count * length,
                }
                yield Sample(workload, producer.name, number, figures, timed.cpu_s)


def _interlock(site: Site, deployment: Deployment) -> _Producer:
    def enqueue(count: int, length: int) -> Timed:
        workflow = chain_of(length)
        with deployment.client() as client:
            client.list()  # connects; a producer that lives does so once
            meter, begun = site.meter(), time.perf_counter()
            ids = [client.enqueue(workflow) for _ in range(count)]
            timed = Timed(time.perf_counter() - begun, meter.used())
        check_runs(deployment.database, ids, steps=count * length, status="executing")
        return timed

    return _Producer(deployment.name, enqueue)


def _celery(site: Site, producer: CanvasProducer) -> _Producer:
    def enqueue(count: int, length: int) -> Timed:
        one = producer.chain_of(length)
        meter, begun = site.meter(), time.perf_counter()
        for _ in range(count):
            one.apply_async()
        return Timed(time.perf_counter() - begun, meter.used())

    return _Producer(CanvasCompetitor.name, enqueue)
