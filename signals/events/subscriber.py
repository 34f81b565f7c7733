"""Receives the events of one workflow or of a session, and reconnects.

Pub/sub forgets: what is published while nobody is connected, or while a slow subscriber is thrown off, is gone. So a
subscriber tells its reader whenever it begins to receive (`Link.SUBSCRIBED`) and whenever it ceases to (`Link.LOST`);
whoever needs every event reads the history then, as `interlock.client.following.watching` does.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import redis
import redis.asyncio

from interlock.core.backoff import Backoff, BackoffTimer
from interlock.core.events import StateChange
from interlock.core.redaction import redacted_url

from .cloud_event import UnreadableEvent, channel, decode, session_pattern
from .redis_connection import open_async_redis, open_redis

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AsyncSubscriber", "Heard", "Link", "Subscriber", "Target"]

logger = logging.getLogger("interlock.events")

_TIMEOUT_S: Final = 1.0  # connecting, and finishing a message that has begun to arrive
_SHORTEST_READ_S: Final = 0.05  # a shorter one could cut a message that is arriving
# With jitter, so that the subscribers of a server that restarts do not all come back at once.
_PAUSES: Final = Backoff(0.1, 2.0, jitter=0.5)
_PING_S: Final = 10.0
_FAILURES: Final = (redis.RedisError, OSError)


class Link(Enum):
    """News of the connection itself."""

    SUBSCRIBED = "subscribed"
    """From now on messages arrive; any number may have been missed before."""
    LOST = "lost"
    """Messages are being missed, until `SUBSCRIBED` comes."""


Heard: TypeAlias = StateChange | Link | None
"""What `get` returns; None: nothing (yet)."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to listen to.

    Attributes:
        session_id: The session.
        workflow_id: The run; None for all runs of the session.
        prefix: Leading part of the channels.
    """

    session_id: str
    workflow_id: str | None = None
    prefix: str = "interlock"

    @property
    def name(self) -> str:
        """The channel, or the pattern of a session."""
        if self.workflow_id is None:
            return session_pattern(self.prefix, self.session_id)
        return channel(self.prefix, self.session_id, self.workflow_id)

    def sends(self, name: bytes, change: StateChange) -> bool:
        """Whether `change` belongs on the channel on which it came, and that channel to this target."""
        return (
            change.session_id == self.session_id
            and self.workflow_id in (None, change.workflow_id)
            and name == channel(self.prefix, change.session_id, change.workflow_id).encode()
        )


class _Conversation:
    """What both subscribers decide alike: when to connect, when to ping, what a message means. No I/O."""

    def __init__(self, redis_url: str, target: Target, clock: Callable[[], float]) -> None:
        self.name = target.name  # checks it
        self._target = target
        self._place = redacted_url(redis_url)
        self._clock = clock
        self._next_try = BackoffTimer(_PAUSES, clock)
        self._warned_of_foreign = False
        self._heard_at = clock()
        self._pinged = False

    def pause_s(self) -> float:
        """Seconds until the next attempt to connect."""
        return max(0.0, self._next_try.left_s)

    def opened(self) -> None:
        """The subscription was sent."""
        self._heard_at, self._pinged = self._clock(), False

    def failed(self, error: BaseException) -> Link | None:
        """The connection could not be made, or broke: `LOST`, once per outage."""
        self._next_try.failed()
        if self._next_try.failures > 1:
            return None
        logger.warning("no events from %s (%s: %s); trying again", self._place, type(error).__name__, error)
        return Link.LOST

    def ping_due(self) -> bool:
        """Whether a quiet line is to be asked if it is alive.

        Raises:
            redis.ConnectionError: It was asked and did not answer.
        """
        if self._clock() - self._heard_at < _PING_S:
            return False
        if self._pinged:
            msg = f"no answer to a ping within {_PING_S:g} s"
            raise redis.ConnectionError(msg)
        self._heard_at, self._pinged = self._clock(), True
        return True

    def read(self, message: dict[str, Any] | None) -> Heard:
        """Translate what the client library received."""
        if message is None:
            return None
        self._heard_at, self._pinged = self._clock(), False
        if message["type"] in ("subscribe", "psubscribe"):
            if self._next_try.failures:
                logger.info("events come again from %s", self._place)
            self._next_try.succeeded()
            return Link.SUBSCRIBED
        if message["type"] in ("message", "pmessage"):
            return self._event(message["channel"], message["data"])
        return None

    def _event(self, name: bytes, data: bytes) -> StateChange | None:
        try:
            change = decode(data)
        except UnreadableEvent as error:
            self._warn_of_foreign(str(error))
            return None
        if not self._target.sends(name, change):
            self._warn_of_foreign("it tells of another workflow than its channel")
            return None
        return change

    def _warn_of_foreign(self, reason: str) -> None:
        # Once: somebody who floods the channel must not flood the log.
        if not self._warned_of_foreign:
            logger.warning("a message on %s of %s is ignored: %s", self.name, self._place, reason)
        self._warned_of_foreign = True


class Subscriber:
    """Listens from a thread. Use it as a context manager; `get` connects, and connects again, by itself.

    Args:
        redis_url: Where events are published.
        target: What to listen to.
        clock: Monotonic seconds.

    Raises:
        ConfigurationError: The URL cannot be used.
        InvalidName: The target cannot name a channel.
    """

    def __init__(self, redis_url: str, target: Target, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._conversation = _Conversation(redis_url, target, clock)
        self._by_pattern = target.workflow_id is None
        self._client = open_redis(redis_url, timeout_s=_TIMEOUT_S)
        self._pubsub: redis.client.PubSub | None = None
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def get(self, timeout_s: float) -> Heard:
        """Return the next event or news of the connection; None when there was none, perhaps before the time is over.

        Args:
            timeout_s: How long to wait for the server; connecting may take another second.

        Raises:
            RuntimeError: It is closed.
        """
        if self._closing.is_set():
            msg = "this subscriber is closed"
            raise RuntimeError(msg)
        try:
            if self._pubsub is None:
                self._connect(timeout_s)
                return None
            if self._conversation.ping_due():
                self._pubsub.ping()
            return self._conversation.read(self._pubsub.get_message(timeout=max(timeout_s, _SHORTEST_READ_S)))
        except _FAILURES as error:
            self._drop()
            return self._conversation.failed(error)

    def _connect(self, timeout_s: float) -> None:
        pause_s = self._conversation.pause_s()
        if pause_s > 0:
            self._closing.wait(min(pause_s, timeout_s))
            return
        self._pubsub = self._client.pubsub()  # type: ignore[no-untyped-call] # redis gives it no hints
        subscribe = self._pubsub.psubscribe if self._by_pattern else self._pubsub.subscribe
        subscribe(self._conversation.name)
        self._conversation.opened()

    def _drop(self) -> None:
        if self._pubsub is not None:
            self._pubsub.close()
        self._pubsub = None

    def close(self) -> None:
        """Disconnect; twice is as good as once."""
        self._closing.set()
        self._drop()
        self._client.close()


class AsyncSubscriber:
    """Listens from an event loop; otherwise like `Subscriber`.

    Args:
        redis_url: Where events are published.
        target: What to listen to.
        clock: Monotonic seconds.

    Raises:
        ConfigurationError: The URL cannot be used.
        InvalidName: The target cannot name a channel.
    """

    def __init__(self, redis_url: str, target: Target, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._conversation = _Conversation(redis_url, target, clock)
        self._by_pattern = target.workflow_id is None
        self._client = open_async_redis(redis_url, timeout_s=_TIMEOUT_S)
        self._pubsub: redis.asyncio.client.PubSub | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def get(self, timeout_s: float) -> Heard:
        """Return the next event or news of the connection; see `Subscriber.get`.

        Raises:
            RuntimeError: It is closed.
        """
        if self._closed:
            msg = "this subscriber is closed"
            raise RuntimeError(msg)
        try:
            if self._pubsub is None:
                await self._connect(timeout_s)
                return None
            if self._conversation.ping_due():
                await self._pubsub.ping()
            return self._conversation.read(await self._pubsub.get_message(timeout=max(timeout_s, _SHORTEST_READ_S)))
        except _FAILURES as error:
            await self._drop()
            return self._conversation.failed(error)

    async def _connect(self, timeout_s: float) -> None:
        pause_s = self._conversation.pause_s()
        if pause_s > 0:
            await asyncio.sleep(min(pause_s, timeout_s))
            return
        self._pubsub = self._client.pubsub()
        subscribe = self._pubsub.psubscribe if self._by_pattern else self._pubsub.subscribe
        await subscribe(self._conversation.name)
        self._conversation.opened()

    async def _drop(self) -> None:
        if self._pubsub is not None:
            await self._pubsub.aclose()  # type: ignore[no-untyped-call] # redis gives it no hints
        self._pubsub = None

    async def aclose(self) -> None:
        """Disconnect; twice is as good as once."""
        self._closed = True
        await self._drop()
        await self._client.aclose()
