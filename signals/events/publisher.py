"""Publishes committed changes on Redis pub/sub.

An event is a hint: the history row is the record, and `watch` reads it. So nothing here raises, nothing waits for long, and while
Redis is away only a probe is sent now and then.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from interlock.core.backoff import Backoff, BackoffTimer
from interlock.core.fault_points import fault_point
from interlock.core.redaction import redacted_url

from .background_publish import BackgroundPublish
from .cloud_event import channel, encode
from .redis_connection import open_redis
from .redis_pipeline import RedisPipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import redis

    from interlock.core.events import Effects, StateChange

    from .redis_pipeline import Command

__all__ = ["FEW", "EventPublisher"]

logger = logging.getLogger("interlock.events")

CHUNK: Final = 1000
"""Messages of one pipeline: what a huge cascade holds in memory and in the socket at a time."""

FEW: Final = 100
"""Changes that are sent without waiting for Redis to have taken them."""

_PAUSES: Final = Backoff(0.5, 5.0)


class EventPublisher:
    """Publishes committed changes; append it to `Database.after_commit`.

    It may be shared by threads, and used before and after a fork: each process has its own connections. Where there is
    no Redis, there is no publisher: do not attach one.

    Args:
        redis_url: Where to publish.
        prefix: Leading part of the channels.
        timeout_s: For connecting and for each read or write; at most 0.5 s, since a transition waits for it.
        budget_s: For all chunks of one commit together; what is left then is not published.
        clock: Monotonic seconds.

    Raises:
        ConfigurationError: The URL cannot be used.
    """

    def __init__(
        self,
        redis_url: str,
        prefix: str = "interlock",
        *,
        timeout_s: float = 0.5,
        budget_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = redis_url
        self._prefix = prefix
        self._timeout_s = min(timeout_s, 0.5)
        self._budget_s = budget_s
        self._clock = clock
        self._closed = False
        self._inherited: list[_Line] = []
        self._line = self._open_line()

    def __repr__(self) -> str:
        """Name the place without its credentials."""
        return f"<EventPublisher {redacted_url(self._url)} {self._prefix}>"

    def __call__(self, effects: Effects) -> None:
        """Publish the changes of a committed transaction; never raises."""
        changes = effects.changes
        if not changes or self._closed:
            return
        few = len(changes) <= FEW
        line = self._own_line()
        if few and line.in_background:
            try:
                line.background.add(changes)
            except RuntimeError:  # no thread is to be had
                self.flush()
        else:
            self.publish(changes, wait=not few)

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """For a block of a process that does one thing at a time: publish by a thread within milliseconds, the rest at the end."""
        line = self._own_line()
        line.in_background = True
        try:
            yield
        finally:
            line.in_background = False
            self.flush()

    def flush(self) -> None:
        """Publish what waits for the background thread, and wait for what the thread is at."""
        line = self._own_line()
        if line.background.waits:
            self.publish((), wait=False)
        with line.order:
            return

    def publish(self, changes: Sequence[StateChange], *, wait: bool = True, first: Sequence[Command] = ()) -> bool:
        """Publish changes in the given order, in one round trip per 1,000; never raises.

        Args:
            changes: Committed ones.
            wait: For Redis to have taken them; else only for their sending, and a failure may show at the next call.
            first: Commands that go out in front of them, in the same write, and whose replies are waited for in any case.

        Returns:
            Whether Redis took all that this has waited for. False is no error: subscribers that catch up read the history.
        """
        if self._closed:
            return False
        line = self._own_line()
        if not line.admits():
            line.skipped += len(changes) + len(line.background.take())
            return False
        with line.order:
            waiting = line.background.take()
            changes = [*waiting, *changes] if waiting else changes
            return not (changes or first) or self._publish(line, changes, wait=wait, first=first)

    def _publish(self, line: _Line, changes: Sequence[StateChange], *, wait: bool, first: Sequence[Command]) -> bool:
        subject = changes[0].workflow_id if changes else ""
        try:
            copies = fault_point("events.publish", subject) if changes else 1
            self._send(line.pipeline, changes if copies == 1 else [*changes] * copies, first, wait=wait)
            if changes:
                fault_point("events.published", subject)
        except Exception as error:  # noqa: BLE001 - whatever it is, the commit stands and the worker must go on
            self._report_outage(line, error, len(changes))
            return False
        self._report_recovery(line)
        return True

    @property
    def address(self) -> dict[str, Any]:
        """Where this process's connections lead, as redis-py's pool has it, credentials included."""
        return dict(self._own_line().client.connection_pool.connection_kwargs)

    def close(self) -> None:
        """Publish what waits, and close this process's connections; what comes later is not published."""
        if not self._closed:
            self.flush()
        self._closed = True
        self._own_line().close()

    def _send(
        self, pipeline: RedisPipeline, changes: Sequence[StateChange], first: Sequence[Command], *, wait: bool
    ) -> None:
        deadline = self._clock() + self._budget_s
        for start in range(0, max(len(changes), 1), CHUNK):
            if start and self._clock() > deadline:
                msg = f"{start} of {len(changes)} events took over {self._budget_s:g} s"
                raise TimeoutError(msg)
            commands = [*first, *self._commands(changes[start : start + CHUNK])]
            pipeline.send(commands, wait_for=len(commands) if wait else len(first))
            first = ()

    def _commands(self, changes: Sequence[StateChange]) -> Iterator[Command]:
        for change in changes:
            try:
                yield "PUBLISH", channel(self._prefix, change.session_id, change.workflow_id), encode(change)
            except (ValueError, TypeError):
                # A row that no door of ours let in must not silence the others.
                logger.exception("history row %s cannot be published", change.history_id)

    def _open_line(self) -> _Line:
        return _Line(
            open_redis(self._url, timeout_s=self._timeout_s),
            BackgroundPublish(self.flush),
            BackoffTimer(_PAUSES, self._clock),
        )

    def _own_line(self) -> _Line:
        line = self._line
        if line.pid != os.getpid():
            # After a fork. The parent's line is kept unused: its sockets are shared, and its lock may be held for ever.
            self._inherited.append(line)
            self._line = line = self._open_line()
        return line

    def _report_outage(self, line: _Line, error: Exception, count: int) -> None:
        line.skipped += count
        if line.failed():
            logger.warning(
                "events are not published, %s failed (%s: %s); nothing is lost, subscribers read the history",
                redacted_url(self._url),
                type(error).__name__,
                error,
            )

    def _report_recovery(self, line: _Line) -> None:
        if line.down and line.recovered():
            logger.info("events are published again on %s; %d were not", redacted_url(self._url), line.skipped)
            line.skipped = 0


@dataclass(slots=True)
class _Line:
    """One process's client, what waits for its background thread, and whether it is worth trying: a circuit breaker.

    `order` is held from taking what waits until it is sent, so that events leave in the order of their changes.
    `in_background`: changes are left to the thread.
    `skipped` is counted without the lock: it is a figure for the log.
    """

    client: redis.Redis
    background: BackgroundPublish
    next_try: BackoffTimer
    pipeline: RedisPipeline = field(init=False)
    order: threading.RLock = field(default_factory=threading.RLock)  # a handler of log lines may publish
    pid: int = field(default_factory=os.getpid)
    in_background: bool = False
    skipped: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Make the client's pipeline."""
        self.pipeline = RedisPipeline(self.client)

    def close(self) -> None:
        """Close its connections."""
        self.background.stop()
        self.pipeline.close()
        self.client.close()

    @property
    def down(self) -> bool:
        """Whether the last try failed."""
        return self.next_try.failures > 0

    def admits(self) -> bool:
        """Whether to try now; of the threads that ask while it is down, one per pause may."""
        if not self.down:
            return True
        with self._lock:
            if self.next_try.left_s > 0:
                return False
            self.next_try.failed()  # until it has succeeded
            return True

    def failed(self) -> bool:
        """Note a failure; True for the first one of an outage."""
        with self._lock:
            if self.down:
                self.next_try.hold()
                return False
            self.next_try.failed()
            return True

    def recovered(self) -> bool:
        """Note a success; True for the first one after an outage."""
        with self._lock:
            ended = self.down
            self.next_try.succeeded()
            return ended
