"""The broker has lost everything: how long the sweeper needs to send again what is due."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import redis

from benchmarks.deployment import KINDS, Deployment, check_runs, fan_out_of
from benchmarks.measuring import Sample
from benchmarks.turns import turns
from interlock.core.settings import Settings
from interlock.core.sweeper.redispatch import Redispatcher
from interlock.signals.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.options import Options
    from benchmarks.site import Site

__all__ = ["measure_recovery"]

_NO_PACE = 1_000_000.0


def measure_recovery(site: Site, options: Options) -> Iterator[Sample]:
    """Send again the messages of so many due steps, in the sweeper's batches, without its rate limit."""
    many = options.sizes.many
    with ExitStack() as stack:
        deployments = [stack.enter_context(Deployment(site, kind)) for kind in KINDS]
        for number, deployment in turns(deployments, options.rounds):
            seconds = _recover(deployment, many)
            yield Sample("recovery", deployment.name, number, {"seconds": seconds, "steps_per_s": many / seconds})


def _recover(deployment: Deployment, many: int) -> float:
    soon = Settings.load(deployment.app.conf, {}, redispatch_s=0.001)
    with deployment.client(settings=soon) as client, redis.Redis.from_url(deployment.broker_url) as broker:
        run_id = client.enqueue(fan_out_of(many, joined=False))
        broker.flushdb()
        seconds = _send_again(deployment)
        messages = broker.llen("celery")
        if messages != many:
            msg = f"no result: {messages} of {many} messages were sent again"
            raise AssertionError(msg)
        check_runs(deployment.database, [run_id], steps=many, status="executing")
        client.cancel(run_id)  # or it would be due in the next round, too
    return seconds


def _send_again(deployment: Deployment) -> float:
    runtime = Runtime(deployment.app, Settings.load(deployment.app.conf, {}, redispatch_rate=_NO_PACE))
    redispatcher = Redispatcher(runtime.database, runtime.settings)
    begun = time.perf_counter()
    redispatcher.send_due()
    seconds = time.perf_counter() - begun
    runtime.close()
    return seconds
