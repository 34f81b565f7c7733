"""Asks the broker how long queues are, and the workers what they consume, for `explain` and the search for lost messages.

The answers are hints, asked for within a bounded time and never needed: a broker that does not answer is itself the answer. A
worker whose pool is `solo` answers only between tasks, so silence is told as silence and not as absence.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, TypeVar

from interlock.core.queries.explain_text import ROUTED_QUEUE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery import Celery
    from kombu import Connection

__all__ = ["BrokerFacts", "add_broker_facts", "ask_broker", "queue_length", "queue_of"]

T = TypeVar("T")

logger = logging.getLogger("interlock.broker_facts")

_ALL_S: Final = 1.8
_WORKERS_SHARE: Final = 0.45  # of the time, for workers to answer: all of it is always used


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """What was learned.

    Attributes:
        lengths: Messages that wait, by queue.
        consumed: For each worker that answered, the names of the queues that it consumes.
    """

    lengths: Mapping[str, int] = field(default_factory=dict)
    consumed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def consumers(self, queue: str) -> list[str]:
        """The workers that consume `queue`, sorted."""
        return sorted(worker for worker, queues in self.consumed.items() if queue in queues)


def add_broker_facts(app: Celery, explained: dict[str, Any], *, timeout_s: float = _ALL_S) -> dict[str, Any]:
    """Add to what `core.explain.explain` found what the broker says of the queues in which steps wait.

    Args:
        app: Its routing tells the queue of a step that names none.
        explained: Copied, with new reasons: `no_worker`, `no_consumer` or `no_broker` in front, `queue` at the end; all but
            `no_broker` with `queue`, `length` (messages) and `workers` (those that consume it). Without a step that waits in
            a queue it is returned as it is, and nobody is asked.
        timeout_s: How long to wait for all answers, those of the workers for somewhat less than half of it.
    """
    queued = {
        reason["step"]: queue_of(app, reason["task"], reason["queue"])
        for reason in explained["reasons"]
        if reason["kind"] == "queued"
    }
    queues = sorted({queue for queue in queued.values() if queue is not None})
    if not queues:
        return explained
    workers_s = timeout_s * _WORKERS_SHARE
    facts = _within(timeout_s, lambda: ask_broker(app, queues, workers_s=workers_s))
    news = [_no_broker(timeout_s)] if facts is None else [_about(facts, queue, workers_s) for queue in queues]
    reasons = [_with_queue(reason, queued) for reason in explained["reasons"]]
    alarms = [reason for reason in news if reason["kind"] != "queue"]
    calm = [reason for reason in news if reason["kind"] == "queue"]
    first_sentences = dict.fromkeys(reason["text"].split(". ")[0].rstrip(".") + "." for reason in alarms)
    return {
        **explained,
        "summary": " ".join([explained["summary"], *first_sentences]),
        "reasons": [*alarms, *reasons, *calm],
    }


def ask_broker(app: Celery, queues: Iterable[str], *, workers_s: float) -> BrokerFacts:
    """Ask the broker for the lengths of queues, and every worker for the queues that it consumes.

    Args:
        app: Its broker is asked.
        queues: Names.
        workers_s: How long to wait for the workers.

    Raises:
        OSError: The broker cannot be reached; or one of kombu's errors.
    """
    with app.connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=1)
        lengths = {queue: queue_length(connection, queue) for queue in queues}
        answers = app.control.inspect(timeout=workers_s, connection=connection).active_queues() or {}
    return BrokerFacts(
        lengths,
        {worker: tuple(str(queue["name"]) for queue in consumed) for worker, consumed in answers.items()},
    )


def queue_length(connection: Connection, queue: str) -> int:
    """How many messages wait in a queue; 0 where there is no such queue."""
    # A channel of its own: RabbitMQ closes the one on which an unknown queue was asked for.
    opened: Any = connection.channel()
    with opened as channel:
        try:
            return int(channel.queue_declare(queue=queue, passive=True).message_count)
        except connection.channel_errors:
            return 0  # no such queue: on Redis, an empty one


def _within(timeout_s: float, ask: Callable[[], T]) -> T | None:
    """The answer, or None where there is none in time or the broker fails; a client library may wait much longer."""
    answers: SimpleQueue[T | None] = SimpleQueue()

    def answer() -> None:
        try:
            answers.put(ask())
        except Exception as error:  # noqa: BLE001 - whatever a transport raises: it is only a hint
            logger.info("the broker gave no facts: %s", type(error).__name__)
            answers.put(None)

    Thread(target=answer, name="broker-facts", daemon=True).start()
    try:
        return answers.get(timeout=timeout_s)
    except Empty:
        return None


def queue_of(app: Celery, task: str, named: str | None) -> str | None:
    """The queue of a step's message: the one that it names, or where the app routes its task; None where a router fails."""
    if named is not None:
        return named
    try:
        queue = app.amqp.router.route({}, task)["queue"]
    except Exception:  # a router is the user's code
        logger.debug("cannot route %s", task, exc_info=True)
        return None
    return str(getattr(queue, "name", queue))


def _with_queue(reason: dict[str, Any], queued: Mapping[str, str | None]) -> dict[str, Any]:
    queue = queued.get(reason["step"]) if reason["kind"] == "queued" else None
    if queue is None:
        return reason
    return {**reason, "queue": queue, "text": reason["text"].replace(ROUTED_QUEUE, f"queue {queue}")}


def _about(facts: BrokerFacts, queue: str, workers_s: float) -> dict[str, Any]:
    length, workers = facts.lengths.get(queue, 0), facts.consumers(queue)
    holds = f"Queue {queue} holds {length:,} message" + ("" if length == 1 else "s")
    start = f"Start one: celery -A your_app worker -Q {queue}"
    if not facts.consumed:
        kind, text = "no_worker", f"No worker answered within {workers_s:.1f} s. {holds}. {start}"
    elif not workers:
        others = ", ".join(f"{worker} ({', '.join(queues)})" for worker, queues in sorted(facts.consumed.items()))
        kind, text = (
            "no_consumer",
            f"No worker that answered consumes queue {queue}. {holds}. There are {others}. {start}",
        )
    else:
        kind = "queue"
        text = (
            f"{holds}, and is consumed by {', '.join(workers)}; what waits there waits for a free place in their pools."
        )
    return {"kind": kind, "step": None, "text": text, "queue": queue, "length": length, "workers": workers}


def _no_broker(timeout_s: float) -> dict[str, Any]:
    text = f"The broker gave no answer within {timeout_s:g} s. While it is away nothing new starts; is it running?"
    return {"kind": "no_broker", "step": None, "text": text}
