"""The control queue as anybody who reaches the broker may use it: bytes in, and what comes to a reply queue."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kombu import Connection, Consumer, Producer

from interlock.signals.control.queues import control_queue, reply_queue
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.worker.deployment import Deployment


class RawLink:
    """Sends bytes, and reads what comes to the reply queue."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.reply_to = f"interlock.reply.{uuid4().hex}"

    def send(self, body: bytes | str, content_type: str = "application/json") -> None:
        queue = control_queue("interlock")
        producer = Producer(self._connection)
        options = {"content_type": content_type, "content_encoding": "utf-8", "declare": [queue]}
        producer.publish(body, exchange=queue.exchange, routing_key=queue.routing_key, **options)

    def command(self, command: str, **fields: Any) -> None:
        self.send(json.dumps({"id": uuid4().hex, "command": command, "reply_to": self.reply_to} | fields))

    def reply(self) -> dict[str, Any]:
        replies: list[dict[str, Any]] = []

        def drained() -> bool:
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=0.2)
            return bool(replies)

        consumer = Consumer(
            self._connection,
            queues=[reply_queue(self.reply_to)],
            on_message=lambda message: replies.append(json.loads(message.body)),
            no_ack=True,
        )
        with consumer:
            wait_until(drained, DEADLINE_S, "a reply")
        return replies[0]

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        self.command(command, **fields)
        return self.reply()


@contextmanager
def raw_link(deployment: Deployment) -> Iterator[RawLink]:
    """A link over a connection of its own."""
    with Connection(deployment.broker.url(0)) as connection:
        yield RawLink(connection)
