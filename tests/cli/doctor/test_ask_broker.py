"""Brokers that have no Redis to ask; what a Redis says is in test_deployments."""

from __future__ import annotations

from celery import Celery

from interlock.cli.doctor.ask_broker import ask_broker_redis, ask_events
from interlock.cli.doctor.facts import Away


def test_without_a_redis_for_events_there_is_none_to_miss() -> None:
    away = ask_events(None, 1.0)
    assert isinstance(away, Away)
    assert not away.is_fault


def test_a_broker_that_is_no_redis_has_no_eviction() -> None:
    away = ask_broker_redis(Celery("memory", broker="memory://", set_as_current=False))
    assert away == Away("the broker is no Redis", is_fault=False)
