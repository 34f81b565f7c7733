"""The consumer of the control queue: takes commands one at a time, acknowledges after the commit, answers, lives on."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError
from kombu.mixins import ConsumerMixin
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from interlock.core.database import is_lost_connection
from interlock.core.errors import CommandRefused, InterlockError
from interlock.signals.control import (
    control_connection,
    control_queue,
    dead_letter_queue,
    error_document,
    expire_reply,
    parse_command,
    reply_address,
)

from .rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from celery import Celery
    from kombu import Connection, Consumer
    from kombu.message import Message

    from interlock.core.settings import Settings
    from interlock.signals.commands import CommandHandler
    from interlock.signals.control import Command

__all__ = ["ControlConsumer"]

logger = logging.getLogger("interlock.control")

_RETRY_S = 1.0


class ControlConsumer(ConsumerMixin):
    """One thread's consumer; a message that is no command is answered, set aside, and never comes back."""

    connect_max_retries = None  # for ever: the broker comes back, or the worker ends

    def __init__(self, app: Celery, settings: Settings, handler: CommandHandler, stop: Event) -> None:
        self.connection: Connection = control_connection(app, settings.channel_prefix)
        self._settings = settings
        self._handler = handler
        self._stop = stop
        self._limit = RateLimit(settings.command_rate)

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
        document: object = None
        try:
            document = json.loads(message.body or "")
            command = parse_command(document)
        except CommandRefused as refusal:
            self._dead_letter(message, document, refusal)
            return
        except (ValueError, RecursionError):
            self._dead_letter(message, document, CommandRefused("?", "not a command: not JSON", code="invalid"))
            return
        if not self._limit.admits(command.session_id):
            message.ack()  # not carried out, so the same id may come again
            self._reply(command.reply_to, {"id": command.id, "ok": False, "error": _too_many(command, self._settings)})
            return
        try:
            outcome = self._handler.handle(command)
        except Exception as error:  # whatever a message holds, it must not end the consumer
            if _may_pass(error):
                logger.warning("command %s is delivered again: %s", command.id, type(error).__name__)
                self._stop.wait(_RETRY_S)
                message.requeue()
                return
            logger.exception("command %s cannot be carried out", command.id)
            text = f"{command.command}: it cannot be carried out ({type(error).__name__}); the engine's log says more"
            self._dead_letter(message, document, CommandRefused(command.command, text, code="invalid"))
            return
        message.ack()
        self._reply(command.reply_to, {"id": command.id, **outcome})

    def _dead_letter(self, message: Message, document: object, refusal: CommandRefused) -> None:
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
        self._reply(reply_address(document), {"ok": False, "error": error_document(refusal)})

    def _reply(self, reply_to: str | None, outcome: dict[str, Any]) -> None:
        if reply_to is not None:
            self._publish(reply_to, outcome, expires=True)

    def _publish(self, routing_key: str, document: dict[str, Any], *, expires: bool = False, **options: Any) -> None:
        refused = (*self.connection.connection_errors, *self.connection.channel_errors)
        lost: tuple[type[BaseException], ...] = (KombuError, OSError, *refused)
        try:
            with self.connection.clone() as connection, connection.Producer() as producer:
                producer.publish(
                    json.dumps(document),
                    routing_key=routing_key,
                    content_type="application/json",
                    content_encoding="utf-8",
                    **options,
                )
                if expires:
                    expire_reply(producer.channel, routing_key)
        except lost as error:
            logger.warning("could not answer on %s: %s", routing_key, type(error).__name__)


def _too_many(command: Command, settings: Settings) -> dict[str, Any]:
    text = f"over {settings.command_rate:g} commands a second in session {command.session_id}: send it again a little later"
    return error_document(CommandRefused(command.command, text, code="rate_limited"))


def _may_pass(error: Exception) -> bool:
    """Whether the same command may succeed later: the database is away or busy, as opposed to the command being wrong."""
    if isinstance(error, InterlockError):
        return error.retryable
    return isinstance(error, (OperationalError, InterfaceError, PoolTimeout)) or is_lost_connection(error)
