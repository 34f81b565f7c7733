"""Sends a command over the control queue and waits for its reply.

A command without a reply may still be carried out. Its id makes it safe to repeat: the first outcome is answered again.
"""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

from kombu import Consumer, Producer

from interlock.core.errors import BrokerUnavailable, CommandTimeout, PayloadTooLarge, UntrustedAnswer
from interlock.core.fault_points import fault_point
from interlock.core.json_values import checked_json
from interlock.signals.broker_errors import BROKER_ERRORS
from interlock.signals.control.admission import DEEPEST
from interlock.signals.control.error_documents import error_from
from interlock.signals.control.queues import control_queue, reply_connection, reply_name, reply_queue
from interlock.signals.control.signing import Keyring

if TYPE_CHECKING:
    from celery import Celery
    from kombu import Connection
    from kombu.message import Message

    from interlock.core.settings import Settings
    from interlock.signals.control.command import Command

__all__ = ["ControlLink"]

# A message is lost with an engine that dies as it takes it off the queue (Redis); the same id makes a second one harmless.
_TRIES = 2
_SHOWN = 500


class ControlLink:
    """Sends commands over a Celery app's broker, signed where their session has a key."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._keyring = Keyring.of(settings)

    def handle(self, command: Command) -> dict[str, Any]:
        """Send the command and wait for its outcome, as `CommandHandler.handle` gives it.

        Raises:
            CommandTimeout: Nobody answered in `interlock_command_timeout_s`.
            UntrustedAnswer: The session has a key, and what came was not signed with it.
            BrokerUnavailable: The command could not be sent.
            NotJson: An argument is no JSON; nothing was sent.
            PayloadTooLarge: It is over `interlock_max_command_bytes`; nothing was sent.
        """
        addressed = command.model_copy(update={"reply_to": reply_name(command.session_id)})
        # json.dumps would send NaN, tuples and other keys as something like them, and the far end would store that.
        checked_json("args", addressed.args, max_depth=DEEPEST)
        answers = _Answers(addressed, self._keyring)
        timeout_s = self._settings.command_timeout_s
        try:
            with (
                reply_connection(self._app, answers.queue) as connection,
                Consumer(
                    connection,
                    queues=[reply_queue(answers.queue, expires=connection.transport.driver_type != "redis")],
                    on_message=answers.take,
                    no_ack=True,
                ),
            ):
                for _ in range(_TRIES):
                    self._send(connection, addressed)
                    _wait_for(connection, answers, timeout_s / _TRIES)
                    if answers.outcome is not None:
                        return answers.outcome
        except BROKER_ERRORS as error:
            raise BrokerUnavailable(command.id, type(error).__name__) from error
        if answers.doubtful is not None:
            raise UntrustedAnswer(command.id, answers.doubtful)
        raise CommandTimeout(command.id, timeout_s)

    def send(self, command: Command) -> None:
        """Send the command and do not wait; it may be lost.

        Raises:
            BrokerUnavailable: It could not be sent.
        """
        try:
            with self._app.connection_for_write() as connection:
                self._send(connection, command)
        except BROKER_ERRORS as error:
            raise BrokerUnavailable(command.id, type(error).__name__) from error

    def _send(self, connection: Connection, command: Command) -> None:
        """Signed at each try anew: what had to wait must not be too old when it arrives."""
        body = json.dumps(self._keyring.sign(command).document())
        if len(body) > self._settings.max_command_bytes:
            raise PayloadTooLarge("the command", len(body), self._settings.max_command_bytes)
        queue = control_queue(self._settings.channel_prefix)
        for _ in range(fault_point("control.send", command.command)):
            Producer(connection).publish(
                body,
                exchange=queue.exchange,
                routing_key=queue.routing_key,
                declare=[queue],
                content_type="application/json",
                content_encoding="utf-8",
                delivery_mode=2,
                retry=True,
                retry_policy={"max_retries": 1, "interval_start": 0},
            )


class _Answers:
    """What comes to the reply queue: the answer to this command, and whatever somebody else may have put there."""

    def __init__(self, command: Command, keyring: Keyring) -> None:
        self.queue = str(command.reply_to)
        self.outcome: dict[str, Any] | None = None
        self.doubtful: str | None = None
        self._command = command
        self._keyring = keyring

    def take(self, message: Message) -> None:
        try:
            answer = json.loads(message.body or "null")
        except (ValueError, RecursionError):
            return
        if not isinstance(answer, dict) or answer.get("id") != self._command.id:
            return
        if self._keyring.trusts(answer, self._command.session_id, self.queue):
            self.outcome = answer
        else:
            self.doubtful = _said(answer)


def _said(answer: dict[str, Any]) -> str:
    error = answer.get("error")
    text = error.get("message") if isinstance(error, dict) else None
    return str(text)[:_SHOWN] if text else ("done" if answer.get("ok") else "nothing")


def _wait_for(connection: Connection, answers: _Answers, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while answers.outcome is None and (left_s := deadline - time.monotonic()) > 0:
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
    error = outcome.get("error")
    raise error_from(error if isinstance(error, dict) else {})
