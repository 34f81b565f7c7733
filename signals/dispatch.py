"""From the database to the broker: attempts that are due become Celery messages, after the commit that made them due.

A message is a hint. One that is lost is sent again by the sweeper, one that comes twice is refused at its claim; so a
broker that is down costs time and nothing else.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from amqp.exceptions import ChannelError
from kombu.exceptions import SerializationError

from interlock.core.attempts import AttemptRef, Attempts
from interlock.core.context import step_context
from interlock.core.errors import ExpressionError
from interlock.core.expressions import embedded, render
from interlock.core.json_values import json_size

from .broker_errors import BROKER_ERRORS
from .header import HEADER, header_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery
    from kombu import Producer

    from interlock.core.database import Database
    from interlock.core.events import Dispatch, Effects
    from interlock.core.settings import Settings

__all__ = ["Dispatcher", "message_options"]

logger = logging.getLogger("interlock.dispatch")

# They say that this message cannot be sent, and nothing of the broker.
_OF_THE_MESSAGE = (ChannelError, SerializationError)
# One reconnection for a pooled connection that has gone stale; what fails then waits for the sweeper.
_RETRY_POLICY = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


class Dispatcher:
    """Publishes attempts; an after-commit handler of `Database`."""

    def __init__(self, app: Celery, database: Database, settings: Settings) -> None:
        self._app = app
        self._database = database
        self._settings = settings
        self._attempts = Attempts(database, settings)
        self._broker_down = False

    def __call__(self, effects: Effects) -> None:
        """Publish what a committed transaction made due."""
        if effects.dispatches:
            self.publish(effects.dispatches)

    def publish(self, dispatches: Sequence[Dispatch]) -> int:
        """Publish, in order; stops at the first failure of the broker.

        Returns:
            How many were published.
        """
        published = 0
        waiting = deque(dispatches)
        try:
            with self._app.producer_or_acquire() as producer:
                while waiting:
                    published += self._publish_next(waiting[0], producer)
                    waiting.popleft()
        except BROKER_ERRORS as error:
            if not self._broker_down:
                logger.warning(
                    "the broker does not take messages (%s); what is due stays due and is sent when it is back",
                    type(error).__name__,
                )
            self._broker_down = True
            self._attempts.not_sent([dispatch.task_id for dispatch in waiting])
        else:
            self._broker_down = False
        return published

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
        self._app.send_task(
            dispatch.task,
            args=args,
            kwargs=kwargs,
            producer=producer,
            retry=True,
            retry_policy=_RETRY_POLICY,
            **message_options(dispatch, grace_s=self._settings.cancel_grace_s),
        )
        return True

    def _arguments(self, dispatch: Dispatch) -> tuple[list[Any], dict[str, Any]] | None:
        """The attempt's arguments; None where they cannot be had, which fails the step."""
        override = dispatch.override or {}  # a task's own `self.retry(args=…)`: data, never rendered
        planned = {"args": dispatch.spec.get("args", []), "kwargs": dispatch.spec.get("kwargs", {})}
        planned = {name: value for name, value in planned.items() if name not in override}
        expressions = [text for value in planned.values() for _, text in embedded(value)]
        try:
            context = self._context(dispatch, expressions) if expressions else {}
            context |= {
                name: value for name, value in dispatch.spec.get("each", {}).items() if name in ("item", "index")
            }
            arguments = {name: render(value, context) for name, value in planned.items()} | override
        except ExpressionError as error:
            self._refuse(dispatch, f"arguments: {error}")
            return None
        args, kwargs = arguments["args"], arguments["kwargs"]
        size = json_size([args, kwargs])
        if size > self._settings.max_argument_bytes:
            self._refuse(
                dispatch,
                f"arguments: {size:,} bytes of JSON, over the limit of {self._settings.max_argument_bytes:,}",
            )
            return None
        return args, kwargs

    def _context(self, dispatch: Dispatch, expressions: Sequence[str]) -> dict[str, Any]:
        with self._database.reading() as connection:
            return step_context(connection, dispatch.run_id, dispatch.step_id, expressions)

    def _refuse(self, dispatch: Dispatch, message: str) -> None:
        self._attempts.fail_unstarted(AttemptRef(dispatch.run_id, dispatch.step_id, dispatch.task_id), message)


def message_options(dispatch: Dispatch, *, grace_s: float) -> dict[str, Any]:
    """The options of `send_task` for an attempt: identity, limits, routing as the plan says.

    A body over its time limit is told softly, and has `grace_s` to end before its process is ended.
    """
    spec = dispatch.spec
    options: dict[str, Any] = dict(spec.get("options", {}))
    options["headers"] = {**options.get("headers", {}), HEADER: header_of(dispatch)}
    for name in ("queue", "priority"):
        if spec.get(name) is not None:
            options[name] = spec[name]
    if spec.get("timeout_s") is not None:
        options["soft_time_limit"] = spec["timeout_s"]
        options["time_limit"] = spec["timeout_s"] + grace_s
    return {
        **options,
        "task_id": dispatch.task_id,
        "root_id": dispatch.run_id,
        "parent_id": dispatch.run_id,
        "retries": dispatch.celery_retries,
        # Results are kept with the step; a result backend would only collect garbage.
        "ignore_result": True,
        "add_to_parent": False,
        "serializer": "json",
        "countdown": None,
        "eta": None,
    }
