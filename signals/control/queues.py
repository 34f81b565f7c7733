"""The queues of commands, of dead letters and of replies, and the connections for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from kombu import Exchange, Queue

from .command import REPLY_PREFIX

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection

__all__ = [
    "control_connection",
    "control_queue",
    "dead_letter_queue",
    "expire_reply",
    "reply_connection",
    "reply_name",
    "reply_queue",
    "trim_dead_letters",
]

_VISIBILITY_TIMEOUT_S: Final = 30
_REPLY_EXPIRES_S: Final = 60.0
_DEAD_KEPT_S: Final = 86_400
_DEAD_KEPT: Final = 1_000


def control_queue(prefix: str) -> Queue:
    """The durable queue of commands; one per `interlock_channel_prefix`."""
    name = f"{prefix}.control"
    return Queue(name, Exchange(name, type="direct", durable=True), routing_key=name, durable=True)


def dead_letter_queue(prefix: str) -> Queue:
    """Where messages go that are no commands; nobody consumes it, so it keeps the last 1,000 for a day."""
    name = f"{prefix}.control.dead"
    return Queue(
        name,
        Exchange(name, type="direct", durable=True),
        routing_key=name,
        durable=True,
        message_ttl=_DEAD_KEPT_S,
        max_length=_DEAD_KEPT,
    )


def reply_name(session_id: str) -> str:
    """A fresh name for a client's queue of replies."""
    return f"{REPLY_PREFIX}{session_id}:{uuid4().hex}"


def reply_queue(name: str, *, expires: bool = True) -> Queue:
    """A client's own queue of replies, gone soon after the client.

    On Redis it needs no time of its own: it is there while there is a reply in it, and `expire_reply` sees to that.
    """
    expires_s = _REPLY_EXPIRES_S if expires else None
    return Queue(name, Exchange(""), routing_key=name, durable=False, auto_delete=True, expires=expires_s)


def expire_reply(channel: Any, name: str) -> None:
    """Have a reply that nobody fetches go away: on Redis a queue is a list, and its client may have given up."""
    if getattr(channel, "conn_or_acquire", None) is not None:
        with channel.conn_or_acquire() as client:
            client.expire(f"{channel.global_keyprefix}{name}", int(_REPLY_EXPIRES_S))


def trim_dead_letters(channel: Any, name: str) -> None:
    """Keep the newest dead letters for a day. On RabbitMQ the queue's arguments do that; on Redis a queue is a list."""
    if getattr(channel, "conn_or_acquire", None) is not None:
        with channel.conn_or_acquire() as client:
            key = f"{channel.global_keyprefix}{name}"
            client.ltrim(key, 0, _DEAD_KEPT - 1)  # the newest is the head
            client.expire(key, _DEAD_KEPT_S)


def control_connection(app: Celery, prefix: str) -> Connection:
    """A connection for consuming commands, with unacknowledged messages of its own.

    Redis gives messages back to their queue after a visibility timeout that is checked for everything under the same keys:
    with shared keys our short timeout would give back other people's tasks while they run.
    """
    return _with_own_keys(app.connection_for_read(), f"{prefix}.control", visibility_timeout=_VISIBILITY_TIMEOUT_S)


def reply_connection(app: Celery, name: str) -> Connection:
    """A connection for sending a command and for its answer, which comes to the queue `name`.

    Whoever waits on Redis also looks for messages to give back: with keys of its own, a client touches none of the workers',
    and an access list can let it have its session's keys alone.
    """
    return _with_own_keys(app.connection_for_write(), name)


def _with_own_keys(connection: Connection, prefix: str, **options: Any) -> Connection:
    keys = {f"{name}_key": f"{prefix}.{name}" for name in ("unacked", "unacked_index", "unacked_mutex")}
    return connection.clone(transport_options={**(connection.transport_options or {}), **options, **keys})
