"""Asks the broker: its queues and who consumes them, how its Redis is set, and whether an engine answers through it."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from interlock.client.control_link import ControlLink
from interlock.core.errors import CommandTimeout, InterlockError
from interlock.signals.control.command import Command
from interlock.signals.dispatch.broker_inspection import ask_broker as ask_queues
from interlock.signals.events.redis_connection import open_redis

from .facts import Away, BrokerFacts, EngineFacts, RedisFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery import Celery
    from kombu import Connection

    from interlock.core.settings import Settings

__all__ = ["ask_broker", "ask_broker_redis", "ask_engine", "ask_events"]

_CONNECT_S: Final = 2
_LOCAL_TRANSPORTS: Final = ("memory", "filesystem")


def ask_broker(app: Celery, queues: Iterable[str], workers_s: float) -> BrokerFacts:
    """Ask for the lengths of the queues and their consumers; workers have `workers_s` to answer.

    Raises:
        OSError: It cannot be reached; or one of kombu's errors.
    """
    names = sorted(set(queues))
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_S)
        transport, is_local = str(connection.transport.driver_type), _is_local(connection)
    told = ask_queues(app, names, workers_s=workers_s)
    consumers = {name: tuple(told.consumers(name)) for name in names}
    return BrokerFacts(transport=transport, is_local=is_local, lengths=told.lengths, consumers=consumers)


def ask_broker_redis(app: Celery) -> RedisFacts | Away:
    """Ask the Redis that is the broker how it is set, over the very connection that Celery would use.

    Raises:
        OSError: It cannot be reached; or one of kombu's or Redis' errors.
    """
    with app.connection_for_read() as connection:
        if connection.transport.driver_type != "redis":
            return Away("the broker is no Redis", is_fault=False)
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_S)
        channel: Any = connection.default_channel
        return _redis_facts(channel.client.info())


def ask_events(url: str | None, timeout_s: float) -> RedisFacts | Away:
    """Ask the Redis for events.

    Raises:
        RedisError: It does not answer.
        ConfigurationError: The URL cannot be used.
    """
    if url is None:
        return Away("no Redis for events is configured: `watch` reads the history every second", is_fault=False)
    client = open_redis(url, timeout_s=timeout_s)
    try:
        client.ping()
        info: Any = client.info()
        return _redis_facts(info)
    finally:
        client.close()


def ask_engine(app: Celery, settings: Settings, session_id: str, timeout_s: float) -> EngineFacts:
    """Send a command that only reads over the control queue, signed where the session has a key, and wait for the answer."""
    link = ControlLink(app, settings.model_copy(update={"command_timeout_s": timeout_s}))
    command = Command(id=f"doctor-{uuid4().hex}", command="list", session_id=session_id, args={"limit": 1})
    try:
        outcome = link.handle(command)
    except CommandTimeout:
        return EngineFacts(fault=f"no engine answered on {settings.channel_prefix}.control within {timeout_s:g} s")
    except InterlockError as error:  # the broker went away, or what came was not to be trusted
        return EngineFacts(fault=str(error))
    if outcome.get("ok"):
        return EngineFacts()
    told: Mapping[str, Any] = outcome.get("error") or {}
    return EngineFacts(fault=f"an engine answered with {told.get('type')}: {told.get('message')}")


def _redis_facts(info: Mapping[str, Any]) -> RedisFacts:
    return RedisFacts(
        policy=str(info.get("maxmemory_policy", "noeviction")),
        limit_bytes=int(info.get("maxmemory", 0)),
        used_bytes=int(info.get("used_memory", 0)),
        is_replica=info.get("role") == "slave",
    )


def _is_local(connection: Connection) -> bool:
    host = str(connection.hostname or "localhost")
    if host == "localhost" or host.startswith("/") or connection.transport_cls in _LOCAL_TRANSPORTS:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name, which others may resolve to this machine
        return False
