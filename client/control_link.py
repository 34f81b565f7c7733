"""The client's end of the control queue: sends a command, waits for its reply.

A command without an answer may still be carried out. Its id makes it safe to repeat, with the same first outcome.
"""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from kombu import Consumer, Producer

from interlock.core.errors import BrokerUnavailable, CommandTimeout
from interlock.signals.broker_errors import BROKER_ERRORS
from interlock.signals.control import control_queue, error_from, reply_queue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery
    from kombu import Connection

    from interlock.core.settings import Settings
    from interlock.signals.control import Command

__all__ = ["ControlLink"]

# A message is lost with an engine that dies as it takes it off the queue (Redis); the same id makes a second one harmless.
_TRIES = 2


class ControlLink:
    """Sends commands over a Celery app's broker."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    def handle(self, command: Command) -> dict[str, Any]:
        """Send the command and wait for its outcome, as `CommandHandler.handle` gives it.

        Raises:
            CommandTimeout: Nobody answered in `interlock_command_timeout_s`.
            BrokerUnavailable: The command could not be sent.
        """
        name = f"interlock.reply.{uuid4().hex}"
        timeout_s = self._settings.command_timeout_s
        try:
            with self._app.connection_for_write() as connection:
                replies: list[dict[str, Any]] = []
                with Consumer(
                    connection,
                    queues=[reply_queue(name)],
                    on_message=lambda message: replies.append(json.loads(message.body or "null")),
                    no_ack=True,
                ):
                    document = {**command.model_dump(mode="json"), "reply_to": name}
                    for _ in range(_TRIES):
                        self._send(connection, document)
                        _wait_for(connection, replies, timeout_s / _TRIES)
                        if replies:
                            break
        except BROKER_ERRORS as error:
            raise BrokerUnavailable(command.id, type(error).__name__) from error
        if not replies:
            raise CommandTimeout(command.id, timeout_s)
        return replies[0]

    def send(self, command: Command) -> None:
        """Send the command and do not wait; it may be lost.

        Raises:
            BrokerUnavailable: It could not be sent.
        """
        try:
            with self._app.connection_for_write() as connection:
                self._send(connection, command.model_dump(mode="json"))
        except BROKER_ERRORS as error:
            raise BrokerUnavailable(command.id, type(error).__name__) from error

    def _send(self, connection: Connection, document: dict[str, Any]) -> None:
        queue = control_queue(self._settings.channel_prefix)
        Producer(connection).publish(
            json.dumps(document),
            exchange=queue.exchange,
            routing_key=queue.routing_key,
            declare=[queue],
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            retry=True,
            retry_policy={"max_retries": 1, "interval_start": 0},
        )


def _wait_for(connection: Connection, replies: Sequence[object], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not replies and (left_s := deadline - time.monotonic()) > 0:
        _drain(connection, left_s)


def _drain(connection: Connection, timeout_s: float) -> None:
    try:
        connection.drain_events(timeout=min(timeout_s, 1.0))
    except socket.timeout:  # noqa: UP041 - what kombu documents; the same as TimeoutError
        connection.heartbeat_check()


def outcome_result(outcome: dict[str, Any]) -> Any:
    """The result of an outcome.

    Raises:
        InterlockError: The outcome is an error; the same one as where the command was carried out.
    """
    if outcome.get("ok"):
        return outcome.get("result")
    raise error_from(outcome.get("error") or {})
