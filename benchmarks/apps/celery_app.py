"""Celery's side: with a result backend for `chain` and `chord`, and without one for the floor."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from celery import Celery
from redis import Redis

from .settings import WORKER_SETTINGS

BROKER_URL = os.environ["BENCHMARK_BROKER_URL"]

app = Celery("benchmark_tasks", broker=BROKER_URL, backend=os.environ.get("BENCHMARK_RESULTS_URL"))
app.conf.update(WORKER_SETTINGS)


@app.task(name="noop")
def noop() -> None:
    """Do nothing."""


@app.task(name="join")
def join(results: list[Any]) -> int:
    """Say how many results came, so that a chord that lost some is no result."""
    return len(results)


@app.task(name="pass_on", ignore_result=True)
def pass_on(left: int, done: str) -> None:
    """Send the next one; the last one says that it was the last."""
    if left > 1:
        pass_on.delay(left - 1, done)
    else:
        _redis().rpush(done, 1)


@app.task(name="count_down", ignore_result=True)
def count_down(left: str, done: str) -> None:
    """Send the join when all others have ended: what a chord comes to without results."""
    if _redis().decr(left) == 0:
        pass_on.delay(1, done)


@cache
def _redis() -> Redis:
    return Redis.from_url(BROKER_URL)  # connects when it is first used, so each pool process has its own
