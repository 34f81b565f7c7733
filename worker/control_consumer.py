"""The consumer of the control queue: takes commands one at a time, acknowledges after the commit, answers, lives on."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError
from kombu.mixins import ConsumerMixin
from sqlalchemy.exc import SQLAlchemyError

from interlock.core.errors import CommandRefused, InterlockError
from interlock.signals.control import (
    REPLY_PATTERN,
    control_connection,
    control_queue,
    dead_letter_queue,
    error_document,
    parse_command,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from celery import Celery
    from kombu import Connection, Consumer
    from kombu.message import Message

    from interlock.core.settings import Settings
    from interlock.signals.commands import CommandHandler

__all__ = ["ControlConsumer"]

logger = logging.getLogger("interlock.control")


class ControlConsumer(ConsumerMixin):
    """One thread's consumer; a message that is no command is answered, set aside, and never comes back."""

    connect_max_retries = None  # for ever: the broker comes back, or the worker ends

    def __init__(self, app: Celery, settings: Settings, handler: CommandHandler, stop: Event) -> None:
        self.connection: Connection = control_connection(app, settings.channel_prefix)
        self._settings = settings
        self._handler = handler
        self._stop = stop

    @property
    def should_stop(self) -> bool:
        """Asked by the mixin between messages."""
        return self._stop.is_set()

    @should_stop.setter
    def should_stop(self, value: bool) -> None:
        if value:
            self._stop.set()

    def get_consumers(self, Consumer: Callable[..., Consumer], channel: Any) -> list[Consumer]:  # noqa: ARG002, N803 - the mixin's protocol
        """Consume the control queue, one message at a time."""
        return [
            Consumer(
                queues=[control_queue(self._settings.channel_prefix)],
                on_message=self._on_message,
                prefetch_count=1,
            ),
        ]

    def on_connection_error(self, exc: BaseException, interval: float) -> None:
        """Say once per try that the broker is away."""
        logger.warning("control queue: %s; next try in %.0f s", type(exc).__name__, interval)

    def _on_message(self, message: Message) -> None:
        reply_to: str | None = None
        try:
            document = json.loads(message.body or "")
            reply_to = _reply_to(document)
            command = parse_command(document)
        except (ValueError, CommandRefused) as error:
            self._dead_letter(message, reply_to, error)
            return
        try:
            outcome = self._handler.handle(command)
        except (SQLAlchemyError, InterlockError) as error:
            logger.warning(
                "command %s could not be carried out (%s); it is delivered again", command.id, type(error).__name__
            )
            self._stop.wait(1.0)
            message.requeue()
            return
        message.ack()
        self._reply(command.reply_to, {"id": command.id, **outcome})

    def _dead_letter(self, message: Message, reply_to: str | None, error: Exception) -> None:
        refusal = error if isinstance(error, CommandRefused) else CommandRefused("?", "not JSON", code="invalid")
        logger.warning("set a control message aside: %s", refusal)
        queue = dead_letter_queue(self._settings.channel_prefix)
        raw: Any = message.body
        body = raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
        self._publish(
            queue.routing_key,
            {"refused": str(refusal), "body": body[:10_000]},
            exchange=queue.exchange,
            declare=[queue],
        )
        message.ack()
        self._reply(reply_to, {"ok": False, "error": error_document(refusal)})

    def _reply(self, reply_to: str | None, outcome: dict[str, Any]) -> None:
        if reply_to is not None:
            self._publish(reply_to, outcome)

    def _publish(self, routing_key: str, document: dict[str, Any], **options: Any) -> None:
        try:
            with self.connection.clone() as connection, connection.Producer() as producer:
                producer.publish(
                    json.dumps(document),
                    routing_key=routing_key,
                    content_type="application/json",
                    content_encoding="utf-8",
                    **options,
                )
        except (KombuError, OSError) as error:
            logger.warning("could not answer on %s: %s", routing_key, type(error).__name__)


def _reply_to(document: object) -> str | None:
    """The reply queue of a message, believed only where it is of our kind; the rest may still be wrong."""
    if not isinstance(document, dict):
        return None
    name = document.get("reply_to")
    return name if isinstance(name, str) and re.fullmatch(REPLY_PATTERN, name) else None
