"""Gathers `Facts` as the shared options say: asks all parts at once, each within its time."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import Celery

from interlock.cli.applications import use_broker
from interlock.core.queries.database_health import Work
from interlock.core.settings import Settings
from interlock.signals.runtime import events_url

from .ask_app import app_facts, configuration, routes
from .ask_broker import ask_broker, ask_broker_redis, ask_engine, ask_events
from .ask_database import ask_database
from .ask_workers import ask_workers
from .facts import THIS_APP, Away, Facts
from .together import ask_all

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from interlock.cli.connection import Target

    from .facts import Configuration

__all__ = ["gather"]

_SLACK_S = 2  # for threads that wait their whole time for answers, and have to connect before


def gather(target: Target, session_id: str, timeout_s: float) -> Facts:
    """Ask database, broker, Redis and workers; takes at most about twice `timeout_s` and a few seconds.

    Args:
        target: Where the deployment is.
        session_id: In whose name an engine is asked.
        timeout_s: How long to wait for each answer.

    Raises:
        ConfigurationError: A setting does not fit.
    """
    app = target.app or _bare_app(target.broker_url)
    own = () if target.app is None else (_prepared(target.app, target),)
    settings = Settings.load(
        app.conf if target.app is not None else None,
        database_url=target.database_url,
        redis_url=target.redis_url,
    )
    database, work = _database(settings, timeout_s)
    backlogs = work.backlogs if isinstance(work, Work) else ()
    queue_of = (
        routes(app, {backlog.task for backlog in backlogs if backlog.queue is None}) if target.app is not None else {}
    )
    queues = {queue for each in backlogs if (queue := each.queue or queue_of.get(each.task))}
    has_broker = target.app is not None or target.broker_url is not None
    told = (
        _ask_services(app, settings, session_id, timeout_s, queues)
        if has_broker
        else _without_broker(settings, timeout_s)
    )
    workers, configurations = told["workers"] if isinstance(told["workers"], tuple) else (told["workers"], ())
    return Facts(
        settings=settings,
        hostname=socket.gethostname(),
        app=app_facts(app, settings) if target.app is not None else None,
        configurations=(*own, *configurations),
        database_or_away=database,
        work_or_away=work,
        broker_or_away=told["broker"],
        broker_redis_or_away=told["redis"],
        events_or_away=told["events"],
        workers_or_away=workers,
        engine_or_away=told["engine"],
        queue_of=queue_of,
    )


def _prepared(app: Celery, target: Target) -> Configuration:
    """Have the app know its tasks and the broker that was named; returns its settings as they were before."""
    app.loader.import_default_modules()
    app.finalize()
    # Uncensored: nothing of it is shown, and Celery censors options whose names look secret, such as `unacked_key`.
    own = configuration(THIS_APP, app.conf.table(with_defaults=True, censored=False))
    if target.broker_url is not None and not target.embedded:
        use_broker(app, target.broker_url)
    return own


def _database(settings: Settings, timeout_s: float) -> tuple[Any, Any]:
    if settings.database_url is None:
        away = Away("no database is configured: `interlock_database_url`, or --database-url", is_fault=False)
        return away, away
    answers = ask_all({"the database": partial(ask_database, settings.database_url, timeout_s)}, timeout_s + _SLACK_S)
    found = answers["the database"]
    return (found, Away("the database did not answer")) if isinstance(found, Away) else found


def _ask_services(
    app: Celery, settings: Settings, session_id: str, timeout_s: float, queues: set[str]
) -> dict[str, Any]:
    told = _asked(
        {
            "broker": ("the broker", partial(ask_broker, app, queues, timeout_s)),
            "redis": ("the broker's Redis", partial(ask_broker_redis, app)),
            "events": ("the Redis for events", partial(ask_events, events_url(app, settings), timeout_s)),
            "workers": ("the workers", partial(ask_workers, app, timeout_s)),
            "engine": ("the engine", partial(ask_engine, app, settings, session_id, timeout_s)),
        },
        timeout_s + 2 * _SLACK_S,
    )
    if isinstance(told["broker"], Away):
        silent = Away("the broker did not answer")  # nor has whoever was asked through it been asked
        told |= {"workers": silent, "engine": silent}
        if isinstance(told["redis"], Away):
            told["redis"] = silent
    return told


def _asked(questions: Mapping[str, tuple[str, Callable[[], Any]]], timeout_s: float) -> dict[str, Any]:
    answers = ask_all(dict(questions.values()), timeout_s)
    return {name: answers[title] for name, (title, _) in questions.items()}


def _without_broker(settings: Settings, timeout_s: float) -> dict[str, Any]:
    away = Away("no broker is named: --broker-url, or the app with -A", is_fault=False)
    question = ("the Redis for events", partial(ask_events, settings.redis_url, timeout_s))
    told = _asked({"events": question}, timeout_s + _SLACK_S)
    return {**dict.fromkeys(("broker", "workers", "engine"), away), "redis": Away(away.reason), **told}


def _bare_app(broker_url: str | None) -> Celery:
    """An app that only connects: it knows no task and no route."""
    return Celery("interlock.doctor", broker=broker_url or "memory://", set_as_current=False)
