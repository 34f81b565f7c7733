"""Opens the database of a process that moves workflows, and attaches what is sent after each commit.

It is opened when first needed and never before. MAIN forks its children and must not hold connections for them to inherit, so
nothing is opened at import or in MAIN's event loop, and a process that was forked from one that had it opens its own.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from threading import Lock
from typing import TYPE_CHECKING

from interlock.core.attempts.attempts import Attempts
from interlock.core.attempts.step_calls import StepCalls
from interlock.core.database.database import Database, open_database
from interlock.core.errors import ConfigurationError
from interlock.core.machine.guard_rules import NO_RULES, GuardRules, attach_rules
from interlock.core.machine.guard_rules_file import load_guard_rules
from interlock.core.settings import Settings

from .dispatch.combined_send import CombinedSend
from .dispatch.dispatcher import Dispatcher
from .dispatch.interrupt_broadcast import InterruptBroadcaster
from .events.publisher import EventPublisher

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from celery import Celery

__all__ = ["Runtime", "events_url", "runtime_of"]


class Runtime:
    """A database with dispatch, interrupts and events attached, for one app in one process.

    Attributes:
        app: The Celery app.
        settings: Its settings.
        database: Open, with its handlers: dispatch first, because steps wait for it, then interrupts, then events.
        attempts: Claims and reports.
        step_calls: What running bodies store and ask.
    """

    def __init__(self, app: Celery, settings: Settings, *, dispatches: bool = True, broadcasts: bool = True) -> None:
        """Open the database of `settings` and attach what it tells.

        Args:
            app: Publishes and broadcasts; its routing decides where tasks go.
            settings: With a `database_url`.
            dispatches: False for an app that does not know the tasks' routes: the sweeper publishes then.
            broadcasts: False for an app without a broker: the heartbeat finds what is to stop.

        Raises:
            ConfigurationError: No database is configured, or the guards file has faults.
        """
        if settings.database_url is None:
            msg = "interlock_database_url is not set: give it in Celery's configuration or as INTERLOCK_DATABASE_URL"
            raise ConfigurationError(msg)
        self.app = app
        self.settings = settings
        rules = _guard_rules(app, settings)
        self.database: Database = open_database(settings.database_url)
        self.database.prepare_connections(settings.idle_transaction_s)
        attach_rules(self.database.engine, rules)
        self.attempts = Attempts(self.database, settings)
        self.step_calls = StepCalls(self.database, settings)
        dispatcher = Dispatcher(app, self.database, settings) if dispatches else None
        broadcaster = InterruptBroadcaster(app) if broadcasts else None
        url = events_url(app, settings)
        self._publisher = None if url is None else EventPublisher(url, settings.channel_prefix)
        if dispatcher is not None and self._publisher is not None:
            self.database.after_commit.append(CombinedSend(dispatcher, self._publisher, broadcaster))
        else:
            handlers = (dispatcher, broadcaster, self._publisher)
            self.database.after_commit += [handler for handler in handlers if handler is not None]

    def events_in_background(self) -> AbstractContextManager[None]:
        """For a block: events are published by a thread; see `EventPublisher.in_background`."""
        return nullcontext() if self._publisher is None else self._publisher.in_background()

    def close(self) -> None:
        """Close the connections."""
        if self._publisher is not None:
            self._publisher.close()
        self.database.dispose()


def events_url(app: Celery, settings: Settings) -> str | None:
    """The Redis that carries events: the one configured, or the broker where that is a Redis."""
    if settings.redis_url:
        return settings.redis_url
    broker = str(app.conf.broker_url or "")
    return broker if broker.startswith(("redis://", "rediss://", "unix://")) else None


def _guard_rules(app: Celery, settings: Settings) -> GuardRules:
    """The rules of the guards file, whose guards are registered where the app's modules are imported."""
    if settings.guards_file is None:
        return NO_RULES
    app.loader.import_default_modules()
    return load_guard_rules(settings.guards_file)


_runtimes: dict[tuple[int, int], Runtime] = {}
_opening = Lock()  # the threads of a pool ask at once


def runtime_of(app: Celery) -> Runtime:
    """This process's runtime for `app`.

    Raises:
        ConfigurationError: No database is configured.
    """
    key = (os.getpid(), id(app))
    runtime = _runtimes.get(key)
    if runtime is None:
        with _opening:
            runtime = _runtimes.get(key)
            if runtime is None:
                runtime = _runtimes[key] = Runtime(app, Settings.load(app.conf))
    return runtime
