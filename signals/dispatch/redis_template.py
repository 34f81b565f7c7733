"""Captures the Redis command that kombu would send for a kind of message, and makes further ones of that kind.

A message that goes straight to a queue is one LPUSH of a JSON document. kombu takes several times longer to make it than Redis to
take it, and cannot send it in one write with something else. Nothing is assumed of the document: kombu makes one, and its headers,
body and ids are replaced.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from kombu.transport import redis

from interlock.core.json_values import compact_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kombu import Producer

    from interlock.signals.events.redis_pipeline import Command

__all__ = ["RedisMessage", "capture"]

_WHERE: Final = ("host", "port", "path", "db", "username", "password", "credential_provider")


@dataclass(frozen=True, slots=True)
class RedisMessage:
    """A kind of message.

    Attributes:
        key: The list of its queue and priority.
        document: An example.
        address: Where the broker is, as redis-py's pool has it, credentials included.
    """

    key: str
    document: Mapping[str, Any]
    address: Mapping[str, Any]

    def is_for(self, address: Mapping[str, Any]) -> bool:
        """Whether the Redis at `address`, reached like that, is the broker."""
        return all(self.address.get(name) == address.get(name) for name in _WHERE)

    def command(self, headers: Mapping[str, Any], body: str, task_id: str) -> Command:
        """The command that puts one of this kind on its queue."""
        properties = {**self.document["properties"], "correlation_id": task_id, "delivery_tag": str(uuid4())}
        document = {
            **self.document,
            "headers": headers,
            "body": b64encode(body.encode()).decode(),
            "properties": properties,
        }
        return "LPUSH", self.key, compact_json(document)


def capture(producer: Producer, publish: Callable[[], None]) -> RedisMessage | None:
    """Have `publish` publish one message by `producer`, and capture the command instead of sending it.

    Returns:
        What would have been sent; None where that is not one LPUSH to a plain Redis.

    Raises:
        Exception: The broker's, or kombu's.
    """
    channel: Any = producer.channel
    # Sentinel's channel asks for its master, a key prefix is added behind what can be captured.
    if type(channel) is not redis.Channel or channel.global_keyprefix:
        return None
    batches: Any = producer._batch_local  # type: ignore[attr-defined] # noqa: SLF001 - where `Producer.batch` keeps its own
    batches.current = captured = _CapturingBatch()
    try:
        publish()
    finally:
        del batches.current
    if len(captured.commands) != 1 or captured.commands[0][0] != "lpush":
        return None
    _, key, text = captured.commands[0]
    document = json.loads(text)
    if document["properties"].get("body_encoding") != "base64":
        return None
    return RedisMessage(key, document, dict(channel.pool.connection_kwargs))


class _CapturingBatch:
    """Stands for a batch of kombu's, and keeps the commands that would be sent at its end."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, Any, Any]] = []

    def publish(self, channel: Any, message: Any, **options: Any) -> None:
        """Have the channel say where the message goes."""
        channel.basic_publish(message, _publish_batch=self, **options)

    def add(self, *command: Any) -> None:
        """Called by the channel."""
        self.commands.append(command)
