"""What a process opens that moves workflows: once, and with what its settings attach."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from interlock.core.errors import ConfigurationError
from interlock.core.settings import Settings
from interlock.signals.dispatch.combined_send import CombinedSend
from interlock.signals.dispatch.dispatcher import Dispatcher
from interlock.signals.dispatch.interrupt_broadcast import InterruptBroadcaster
from interlock.signals.runtime import Runtime, events_url, runtime_of


def _app(broker: str = "redis://127.0.0.1:1/0", **settings: Any) -> Celery:
    app = Celery("runtime", broker=broker, set_as_current=False)
    app.conf.update(settings)
    return app


@pytest.mark.parametrize(
    ("broker", "redis_url", "events"),
    [
        ("redis://127.0.0.1:1/0", None, "redis://127.0.0.1:1/0"),
        ("rediss://127.0.0.1:1/0", None, "rediss://127.0.0.1:1/0"),
        ("amqp://127.0.0.1:1//", None, None),
        ("amqp://127.0.0.1:1//", "redis://127.0.0.1:2/0", "redis://127.0.0.1:2/0"),
    ],
)
def test_events_go_to_the_redis_that_is_named_or_else_to_a_broker_that_is_one(
    broker: str, redis_url: str | None, events: str | None
) -> None:
    assert events_url(_app(broker), Settings(redis_url=redis_url)) == events


def test_without_a_database_there_is_no_runtime() -> None:
    with pytest.raises(ConfigurationError, match="interlock_database_url"):
        Runtime(_app(), Settings())


def test_a_process_has_one_runtime_for_an_app(migrated_sqlite_url: str) -> None:
    app = _app(interlock_database_url=migrated_sqlite_url)
    assert runtime_of(app) is runtime_of(app)
    runtime_of(app).close()


@pytest.mark.parametrize(
    ("broker", "handlers"),
    [("redis://127.0.0.1:1/0", [CombinedSend]), ("amqp://127.0.0.1:1//", [Dispatcher, InterruptBroadcaster])],
)
def test_what_is_told_after_a_commit_depends_on_the_broker(
    migrated_sqlite_url: str, broker: str, handlers: list[type]
) -> None:
    runtime = Runtime(_app(broker), Settings(database_url=migrated_sqlite_url))
    assert [type(handler) for handler in runtime.database.after_commit] == handlers
    with runtime.events_in_background():
        pass
    runtime.close()
