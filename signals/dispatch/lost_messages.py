"""Finds the messages that are lost: their queue is empty, and no worker has them.

A message that left its queue before the queue was seen empty has been given to a worker, or is lost; what a worker has taken and
not begun, only the worker itself knows. Both are asked, in that order, in a thread of its own, so that the sweep never waits for a
broker: the answer is there at the next sweep. A wrong answer costs a message that is refused at its claim: a worker may be too
busy to answer. Celery does not count what it holds back by a rate limit, so such tasks are not judged.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Final

from interlock.core.backoff import Backoff
from interlock.core.fault_points import fault_point
from interlock.core.sweeper.backoff import KeyedBackoff

from .broker_inspection import queue_length, queue_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery
    from kombu import Connection

    from interlock.core.sweeper.redispatch import Unclaimed

__all__ = ["LostMessages"]

logger = logging.getLogger("interlock.broker_facts")

_AT_ONCE: Final = 500  # ids in one question, which goes to every worker
_WORKERS_S: Final = 1.0  # for workers to answer: all of it is always used
_FRESH_S: Final = 10.0  # a question that took longer says nothing of now
_HELD: Final = Backoff(4.0, 60.0)  # before a worker is asked again for what it holds


@dataclass(frozen=True, slots=True)
class _Answer:
    missing: frozenset[Unclaimed]
    held: frozenset[Unclaimed]


class LostMessages:
    """Tells a `Redispatcher` what is missing. One per process; called by one thread.

    Args:
        app: Its broker and its workers are asked; its routes tell the queue of a step that names none.
        clock: Monotonic seconds.
    """

    def __init__(self, app: Celery, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._held = KeyedBackoff(_HELD, clock)
        self._asking: Thread | None = None
        self._answer: _Answer | None = None

    def __call__(self, unclaimed: Sequence[Unclaimed]) -> frozenset[str]:
        """Return the ids of those that the last question found missing, and ask for the others."""
        if self._asking is not None and self._asking.is_alive():
            return frozenset()
        missing = self._confirmed(frozenset(unclaimed))
        held = frozenset(self._held.now())
        doubtful = [each for each in unclaimed if each not in missing and each.task_id not in held]
        self._ask([each for each in doubtful if not self._is_rate_limited(each.task)][:_AT_ONCE])
        return frozenset(each.task_id for each in missing)

    def _confirmed(self, unclaimed: frozenset[Unclaimed]) -> frozenset[Unclaimed]:
        """What was found missing, if all of it still is: where some was claimed or sent since, messages were on their way."""
        answer, self._answer = self._answer, None
        if answer is None:
            return frozenset()
        for each in answer.held:
            self._held.add(each.task_id)
        return answer.missing if answer.missing <= unclaimed else frozenset()

    def _is_rate_limited(self, task: str) -> bool:
        known = self._app.tasks.get(task)
        return bool(self._app.conf.task_default_rate_limit if known is None else known.rate_limit)

    # --- the other thread

    def _ask(self, unclaimed: Sequence[Unclaimed]) -> None:
        self._asking = None
        if unclaimed:
            self._asking = Thread(target=self._look, args=(unclaimed,), name="missing-messages", daemon=True)
            self._asking.start()

    def _look(self, unclaimed: Sequence[Unclaimed]) -> None:
        began = self._clock()
        try:
            with self._app.connection_for_read() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=1)
                gone = self._of_empty_queues(connection, unclaimed)
                held = self._held_by_workers(connection, gone) if gone else frozenset()
        except Exception as error:  # noqa: BLE001 - whatever a transport raises: what is lost is sent again when it is due
            logger.debug("nobody could say what is missing: %s", type(error).__name__)
            return
        fault_point("missing.asked")
        if self._clock() - began <= _FRESH_S:
            self._answer = _Answer(frozenset(gone) - held, held)

    def _of_empty_queues(self, connection: Connection, unclaimed: Sequence[Unclaimed]) -> list[Unclaimed]:
        queues = {each: queue_of(self._app, each.task, each.queue) for each in unclaimed}
        empty = {name for name in set(queues.values()) if name is not None and queue_length(connection, name) == 0}
        return [each for each in unclaimed if queues[each] in empty]

    def _held_by_workers(self, connection: Connection, gone: Sequence[Unclaimed]) -> frozenset[Unclaimed]:
        ask = self._app.control.inspect(timeout=_WORKERS_S, connection=connection)
        answers = (ask.query_task(*[each.task_id for each in gone]) or {}).values()
        held = {task_id for answer in answers for task_id in answer}
        return frozenset(each for each in gone if each.task_id in held)
