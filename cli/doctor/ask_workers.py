"""Asks the workers by remote control. Each question waits its whole time, since nobody knows how many will answer.

A worker whose `solo` pool is busy, or whose remote control is off, does not answer: silence is no proof of absence.
"""

from __future__ import annotations

import time
from functools import partial
from threading import Timer
from typing import TYPE_CHECKING, Any

from celery.utils.time import utcoffset

from interlock.worker.child.step_mixin import StepMixin

from .ask_app import configuration
from .facts import Away, Configuration, WorkerFacts
from .together import ask_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery import Celery
    from kombu import Connection

__all__ = ["ask_workers"]

_HOOK = "before_start"  # what every task has from `install(app)`; a worker shows whose it is
_SLACK_S = 2  # for connecting, beside the time in which answers are waited for
_HOUR_S = 3600.0


def ask_workers(app: Celery, timeout_s: float) -> tuple[tuple[WorkerFacts, ...], tuple[Configuration, ...]]:
    """Ask every worker for its pool, its tasks, its settings, its clock, and whether Interlock is in it.

    Args:
        app: Its broker is asked.
        timeout_s: How long to wait for answers.

    Returns:
        The workers that answered anything, and the settings of those that told them.
    """
    found = ask_all(
        {
            "stats": partial(_inspect, app, timeout_s, lambda inspect: inspect.stats()),
            "tasks": partial(_inspect, app, timeout_s, lambda inspect: inspect.registered(_HOOK)),
            "settings": partial(_inspect, app, timeout_s, lambda inspect: inspect.conf(with_defaults=True)),
            "clocks": partial(_ask_for_clocks, app, timeout_s),
        },
        timeout_s + _SLACK_S,
    )
    answers: dict[str, Mapping[str, Any]] = {
        name: {} if isinstance(answer, Away) else answer for name, answer in found.items()
    }
    names = sorted({name for answer in answers.values() for name in answer})
    workers = tuple(
        WorkerFacts(
            name=name,
            pool=_pool(answers["stats"].get(name)),
            processes=_processes(answers["stats"].get(name)),
            tasks=_names(answers["tasks"].get(name)),
            has_interlock=_has_interlock(answers["tasks"].get(name)),
            skew_s=answers["clocks"].get(name),
        )
        for name in names
    )
    return workers, tuple(configuration(name, celery) for name, celery in sorted(answers["settings"].items()))


def _connected(app: Celery) -> Connection:
    connection: Connection = app.connection_for_read()
    connection.ensure_connection(max_retries=1, interval_start=0, timeout=_SLACK_S)
    return connection


def _inspect(app: Celery, timeout_s: float, ask: Callable[[Any], Any]) -> dict[str, Any]:
    with _connected(app) as connection:
        return ask(app.control.inspect(timeout=timeout_s, connection=connection)) or {}


def _ask_for_clocks(app: Celery, timeout_s: float) -> dict[str, float]:
    """Have every worker send a heartbeat, which carries its time, and compare that with ours when it comes."""
    skews: dict[str, float] = {}

    def hear(event: Mapping[str, Any]) -> None:
        # Celery has moved the time by the difference of the time zones, which a time in seconds since 1970 does not have.
        sent = event["timestamp"] + (event.get("utcoffset", utcoffset()) - utcoffset()) * _HOUR_S
        skews.setdefault(event["hostname"], sent - time.time())

    with _connected(app) as connection:
        receiver = app.events.Receiver(connection, handlers={"worker-heartbeat": hear})
        over = Timer(timeout_s, setattr, (receiver, "should_stop", True))
        over.start()
        try:
            receiver.capture(limit=None, timeout=None, wakeup=True)
        finally:
            over.cancel()
    return skews


def _names(told: Sequence[str] | None) -> frozenset[str] | None:
    return None if told is None else frozenset(each.partition(" [")[0] for each in told)


def _has_interlock(told: Sequence[str] | None) -> bool:
    """Whether the tasks of a worker are wrapped; of one that has no task, or did not say, nothing bad is believed."""
    return not told or any(f"{_HOOK}=<bound method {StepMixin.__name__}." in each for each in told)


def _pool(stats: Any) -> str:
    pool = (stats or {}).get("pool") or {}
    return str(pool.get("implementation", "")).partition(":")[0]


def _processes(stats: Any) -> int:
    count = ((stats or {}).get("pool") or {}).get("max-concurrency")
    return count if isinstance(count, int) else 0
