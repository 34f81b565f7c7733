"""Celery alone: `chain` and `chord` with results in Redis, and the floor: tasks that send the next one, without results."""

from __future__ import annotations

import gc
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from celery import Celery, chain, chord, group
from redis import Redis

from benchmarks.measuring import Timed

from .base import DEADLINE_S, CeleryCompetitor

if TYPE_CHECKING:
    from benchmarks.measuring import CpuMeter
    from benchmarks.site import Site

__all__ = ["CanvasCompetitor", "CanvasProducer", "FloorCompetitor"]

APP = "benchmarks.apps.celery_app"


class CanvasProducer:
    """A producer of canvas work, whoever does it.

    Attributes:
        broker_url: Where the messages go.
        results_url: Where the results come.
    """

    def __init__(self, site: Site) -> None:
        self.broker_url, self.results_url = site.broker_url(), site.broker_url()
        self._app = Celery("benchmark_producer", broker=self.broker_url, backend=self.results_url, set_as_current=False)

    def chain_of(self, length: int) -> Any:
        """A `chain` of no-ops; it may be sent more than once."""
        noop = self._app.signature("noop", immutable=True, app=self._app)
        return chain(*[noop.clone() for _ in range(length)], app=self._app)

    def chord_of(self, width: int) -> Any:
        """A `chord` of no-ops, whose body counts what it is given."""
        noop = self._app.signature("noop", immutable=True, app=self._app)
        header = group([noop.clone() for _ in range(width)], app=self._app)
        return chord(header, self._app.signature("join", app=self._app), app=self._app)

    def close(self) -> None:
        """Close the connections; results that are left would complain of a Redis that has gone."""
        gc.collect()
        self._app.close()


class CanvasCompetitor(CeleryCompetitor):
    """What canvas users have."""

    name = "Celery canvas, Redis results"

    def __init__(self, site: Site, children: int) -> None:
        self._producer = CanvasProducer(site)
        env = {"BENCHMARK_BROKER_URL": self._producer.broker_url, "BENCHMARK_RESULTS_URL": self._producer.results_url}
        super().__init__(site, APP, children=children, env=env)

    def chains(self, count: int, length: int) -> Timed:
        """Send `chain`s and get each last result."""
        one = self._producer.chain_of(length)
        meter, begun = self.meter(), time.time()
        results = [one.apply_async() for _ in range(count)]
        for result in results:
            result.get(timeout=DEADLINE_S)
        return Timed(time.time() - begun, meter.used())

    def fan_out(self, width: int) -> Timed:
        """Send a `chord` and get its result."""
        one = self._producer.chord_of(width)
        meter, begun = self.meter(), time.time()
        result = one.apply_async()
        joined = result.get(timeout=DEADLINE_S)  # `result` is kept: its end unsubscribes from a thousand channels
        timed = Timed(time.time() - begun, meter.used())
        if joined != width:
            msg = f"no result: the chord joined {joined} of {width}"
            raise AssertionError(msg)
        return timed

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        """Stop the worker."""
        super().__exit__(exc_type, *rest)
        self._producer.close()


class FloorCompetitor(CeleryCompetitor):
    """What the same work costs in Celery with no record of it at all."""

    name = "Celery, task sends the next (floor)"

    def __init__(self, site: Site, children: int) -> None:
        broker = site.broker_url()
        super().__init__(site, APP, children=children, env={"BENCHMARK_BROKER_URL": broker})
        self._app = Celery("benchmark_producer", broker=broker, set_as_current=False)
        self._redis = Redis.from_url(broker, socket_timeout=None)
        self._names = count()

    def chains(self, count: int, length: int) -> Timed:
        """Send the first tasks and wait for the last ones."""
        done = f"done-{next(self._names)}"
        meter, begun = self.meter(), time.time()
        for _ in range(count):
            self._app.send_task("pass_on", (length, done), ignore_result=True)
        return self._wait(done, count, meter, begun)

    def fan_out(self, width: int) -> Timed:
        """Send the tasks and a counter, the last of them sends the join."""
        done = f"done-{next(self._names)}"
        meter, begun = self.meter(), time.time()
        self._redis.set(f"{done}-left", width)
        for _ in range(width):
            self._app.send_task("count_down", (f"{done}-left", done), ignore_result=True)
        return self._wait(done, 1, meter, begun)

    def _wait(self, done: str, times: int, meter: CpuMeter, begun: float) -> Timed:
        for _ in range(times):
            if self._redis.blpop([done], DEADLINE_S) is None:
                msg = f"no result: {self.name} did not end"
                raise AssertionError(msg)
        return Timed(time.time() - begun, meter.used())

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        """Stop the worker."""
        super().__exit__(exc_type, *rest)
        self._redis.close()
        self._app.close()
