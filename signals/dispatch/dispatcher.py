"""Publishes due attempts as Celery messages, after the commit that made them due.

A message is a hint. One that is lost is sent again by the sweeper, one that comes twice is refused at its claim; so a broker that
is down costs time and nothing else.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from amqp.exceptions import ChannelError
from kombu.exceptions import SerializationError

from interlock.core.attempts.attempts import AttemptRef, Attempts
from interlock.core.attempts.undelivered import Undelivered
from interlock.core.errors import ExpressionError
from interlock.core.fault_points import fault_point
from interlock.core.json_values import json_size
from interlock.core.orchestration.step_context import step_context
from interlock.core.plan.expressions import embedded, render
from interlock.signals.broker_errors import BROKER_ERRORS

from .message_templates import StepMessages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from celery import Celery
    from kombu import Producer

    from interlock.core.database.database import Database
    from interlock.core.events import Dispatch, Effects
    from interlock.core.settings import Settings
    from interlock.signals.events.redis_pipeline import Command

__all__ = ["ArgumentsRefused", "Dispatcher", "render_arguments"]

logger = logging.getLogger("interlock.dispatch")

_BATCH = 200  # messages of one round trip: what a huge fan-out holds in memory at a time
# They say that this message cannot be sent, and nothing of the broker.
_OF_THE_MESSAGE = (ChannelError, SerializationError)


class ArgumentsRefused(Exception):
    """An attempt cannot have the arguments that its plan gives it."""


class Dispatcher:
    """Publishes attempts; an after-commit handler of `Database`."""

    def __init__(self, app: Celery, database: Database, settings: Settings) -> None:
        self._app = app
        self._database = database
        self._settings = settings
        self._attempts = Attempts(database, settings)
        self._undelivered = Undelivered(database, settings)
        self._messages = StepMessages(app, settings)
        self._broker_down = False

    def __call__(self, effects: Effects) -> None:
        """Publish what a committed transaction made due."""
        if effects.dispatches:
            self.publish(effects.dispatches)

    def publish(self, dispatches: Sequence[Dispatch]) -> int:
        """Publish, in order, many in one round trip where the transport can; stops at the first failure of the broker.

        Returns:
            How many were published; 0 where the broker failed, even if it took some.
        """
        try:
            with self._app.producer_or_acquire() as producer, _batch(producer, len(dispatches)):
                published = sum(self._publish_next(dispatch, producer) for dispatch in dispatches)
        except BROKER_ERRORS as error:
            if not self._broker_down:
                logger.warning(
                    "the broker does not take messages (%s); what is due stays due and is sent when it is back",
                    type(error).__name__,
                )
            self._broker_down = True
            # Some may have gone out. They are sent again all the same: a claim is granted once.
            self._undelivered.not_sent([dispatch.task_id for dispatch in dispatches])
            return 0
        self._broker_down = False
        for dispatch in dispatches:
            fault_point("dispatch.published", dispatch.task_id)
        return published

    def redis_commands(
        self, dispatches: Sequence[Dispatch], address: Mapping[str, Any]
    ) -> list[tuple[Dispatch, Command]] | None:
        """The commands that put attempts on their queues, for whoever sends them along with something else.

        Args:
            dispatches: To be sent, in order.
            address: Of a Redis, as its pool has it.

        Returns:
            One per message, fewer where arguments cannot be had, which fails the step. None where that Redis is not the broker,
            or `publish` is needed.
        """
        try:
            makers = [self._messages.for_redis(dispatch, address) for dispatch in dispatches]
        except Exception:  # noqa: BLE001 - the broker is away, or refuses: `publish` knows what to do
            return None
        if None in makers:
            return None
        commands = []
        for dispatch, make in zip(dispatches, makers, strict=True):
            arguments = self._arguments(dispatch)
            if make is not None and arguments is not None:
                command = make(*arguments)
                commands += [(dispatch, command)] * fault_point("dispatch.publish", dispatch.task_id)
        return commands

    def _publish_next(self, dispatch: Dispatch, producer: Producer) -> bool:
        try:
            return self._publish_one(dispatch, producer)
        except Exception as error:
            if isinstance(error, BROKER_ERRORS) and not isinstance(error, _OF_THE_MESSAGE):
                raise
            # Its queue does not exist, or a router of the user's fails: the others must not wait for it.
            logger.exception("cannot send step %s of run %s; it is tried again later", dispatch.key, dispatch.run_id)
            return False

    def _publish_one(self, dispatch: Dispatch, producer: Producer) -> bool:
        arguments = self._arguments(dispatch)
        if arguments is None:
            return False
        args, kwargs = arguments
        for _ in range(fault_point("dispatch.publish", dispatch.task_id)):
            self._messages.send(dispatch, args, kwargs, producer)
        return True

    def _arguments(self, dispatch: Dispatch) -> tuple[list[Any], dict[str, Any]] | None:
        """The attempt's arguments; None where they cannot be had, which fails the step."""
        try:
            return render_arguments(dispatch, self._database, self._settings)
        except ArgumentsRefused as refusal:
            self._attempts.fail_unstarted(AttemptRef(dispatch.run_id, dispatch.step_id, dispatch.task_id), str(refusal))
            return None


def render_arguments(dispatch: Dispatch, database: Database, settings: Settings) -> tuple[list[Any], dict[str, Any]]:
    """An attempt's arguments, as its plan and the results so far give them.

    Raises:
        ArgumentsRefused: They cannot be had, or are too large; the message is for the step's error.
    """
    override = dispatch.override or {}  # a task's own `self.retry(args=…)`: data, never rendered
    planned = {"args": dispatch.spec.get("args", []), "kwargs": dispatch.spec.get("kwargs", {})}
    planned = {name: value for name, value in planned.items() if name not in override}
    expressions = [text for value in planned.values() for _, text in embedded(value)]
    try:
        context = _context(dispatch, database, expressions) if expressions else {}
        context |= {name: value for name, value in dispatch.spec.get("each", {}).items() if name in ("item", "index")}
        arguments = {name: render(value, context) for name, value in planned.items()} | override
    except ExpressionError as error:
        msg = f"arguments: {error}"
        raise ArgumentsRefused(msg) from error
    args, kwargs = arguments["args"], arguments["kwargs"]
    size = json_size([args, kwargs])
    if size > settings.max_argument_bytes:
        msg = f"arguments: {size:,} bytes of JSON, over the limit of {settings.max_argument_bytes:,}"
        raise ArgumentsRefused(msg)
    return args, kwargs


def _context(dispatch: Dispatch, database: Database, expressions: Sequence[str]) -> dict[str, Any]:
    with database.reading() as connection:
        return step_context(connection, dispatch.run_id, dispatch.step_id, expressions)


def _batch(producer: Producer, size: int) -> AbstractContextManager[object]:
    """Have kombu send several messages in one round trip; on transports that cannot, each goes out by itself."""
    batching: Any = producer  # its stubs do not know it yet
    return batching.batch(_BATCH) if size > 1 else nullcontext()
