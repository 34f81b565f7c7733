"""Consumes the control queue: one command at a time, acknowledged after its commit, answered; what is no command is set aside."""

from __future__ import annotations

import gc
import json
import logging
from typing import TYPE_CHECKING, Any

from kombu.exceptions import KombuError
from kombu.mixins import ConsumerMixin

from interlock.core.database.errors import may_succeed_later
from interlock.core.errors import CommandRefused
from interlock.core.fault_points import fault_point
from interlock.core.redaction import redacted
from interlock.signals.control.admission import Admission, Admitted, Rejected
from interlock.signals.control.error_documents import error_document
from interlock.signals.control.queues import (
    control_connection,
    control_queue,
    dead_letter_queue,
    expire_reply,
    trim_dead_letters,
)

from .rate_limit import RateLimit, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from celery import Celery
    from kombu import Connection, Consumer
    from kombu.message import Message

    from interlock.core.settings import Settings
    from interlock.signals.control.handler import CommandHandler

__all__ = ["ControlConsumer"]

logger = logging.getLogger("interlock.control")

_RETRY_S = 1.0
_REJECTED_PER_S = 50
_DEAD_BYTES = 10_000


class ControlConsumer(ConsumerMixin):
    """One thread's consumer; a message that is no command is answered, set aside, and never comes back."""

    connect_max_retries = None  # for ever: the broker comes back, or the worker ends

    def __init__(self, app: Celery, settings: Settings, handler: CommandHandler, stop: Event) -> None:
        self.connection: Connection = control_connection(app, settings.channel_prefix)
        self._settings = settings
        self._handler = handler
        self._stop = stop
        self._admission = Admission(settings)
        self._limit = RateLimit(settings.command_rate, settings.command_rate_total)
        self._rejected_rate = TokenBucket(_REJECTED_PER_S)
        self._dropped = 0

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

    def on_connection_revived(self) -> None:
        """Let go of what the lost connection had open.

        kombu leaves it in reference cycles, and an engine makes so little garbage that a collection may be a hundred restarts
        of the broker away.
        """
        gc.collect()

    def on_connection_error(self, exc: BaseException, interval: float) -> None:
        """Say once per try that the broker is away."""
        logger.warning("control queue: %s; next try in %.0f s", type(exc).__name__, interval)

    def _on_message(self, message: Message) -> None:
        found = self._read(message)
        if isinstance(found, Rejected):
            self._reject(message, found)
            return
        command = found.command
        if (exceeded := self._limit.exceeded_by(command.session_id)) is not None:
            message.ack()  # not carried out, so the same id may come again
            refusal = CommandRefused(command.command, f"{exceeded}: send it again a little later", code="rate_limited")
            self._answer(found, {"ok": False, "error": error_document(refusal)})
            return
        subject = f"{command.command} {command.id}"
        fault_point("control.received", subject)
        try:
            outcome = self._handler.handle(command, found.args)
        except Exception as error:  # whatever a message holds, it must not end the consumer
            if may_succeed_later(error):
                logger.warning("command %s is delivered again: %s", command.id, type(error).__name__)
                self._stop.wait(_RETRY_S)
                message.requeue()
                return
            logger.exception("command %s cannot be carried out", command.id)
            text = f"{command.command}: it cannot be carried out ({type(error).__name__}); the engine's log says more"
            refusal = CommandRefused(command.command, text, code="invalid")
            self._reject(message, Rejected(refusal, command.id, command.reply_to, found.key))
            return
        fault_point("control.ack", subject)
        message.ack()
        for _ in range(fault_point("control.reply", subject)):
            self._answer(found, outcome)

    def _read(self, message: Message) -> Admitted | Rejected:
        try:
            return self._admission.read(message.body or b"")
        except Exception as error:  # a message that trips the checks themselves must not come back for ever
            logger.exception("could not read a control message")
            return Rejected(CommandRefused("?", f"not a command ({type(error).__name__})", code="invalid"))

    def _reject(self, message: Message, found: Rejected) -> None:
        """Answer and set aside what is not carried out; of a flood, only some: log, dead letters and answers stay small."""
        if not self._rejected_rate.take():
            self._dropped += 1
            message.ack()
            return
        if self._dropped:
            logger.warning("%d more control messages were no commands, and were dropped", self._dropped)
            self._dropped = 0
        logger.warning("set a control message aside: %s", redacted(str(found.refusal)))
        queue = dead_letter_queue(self._settings.channel_prefix)
        raw: Any = message.body
        body = raw[:_DEAD_BYTES].decode(errors="replace") if isinstance(raw, bytes) else str(raw)[:_DEAD_BYTES]
        self._publish(
            queue.routing_key,
            {"refused": str(found.refusal), "body": body},
            trim_dead_letters,
            exchange=queue.exchange,
            declare=[queue],
        )
        message.ack()
        answer = {"id": found.request_id, "ok": False, "error": error_document(found.refusal)}
        self._reply(found.reply_to, answer, found.key)

    def _answer(self, found: Admitted, outcome: dict[str, Any]) -> None:
        self._reply(found.command.reply_to, {"id": found.command.id, **outcome}, found.key)

    def _reply(self, reply_to: str | None, answer: dict[str, Any], key: bytes | None) -> None:
        if reply_to is not None:
            self._publish(reply_to, self._admission.keyring.seal(answer, reply_to, key), expire_reply)

    def _publish(
        self,
        routing_key: str,
        document: dict[str, Any],
        bound: Callable[[Any, str], None],
        **options: Any,
    ) -> None:
        """Send a message, and bound what stays of it where nobody fetches it."""
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
                bound(producer.channel, routing_key)
        except lost as error:
            logger.warning("could not answer on %s: %s", routing_key, type(error).__name__)
