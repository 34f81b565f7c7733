"""The I/O of watching a run or a session, from a thread or from an event loop: asks the subscriber, reads the history.

The algorithm is in `catch_up` and `session_catch_up`.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from interlock.signals.events.subscriber import AsyncSubscriber, Link, Subscriber

from .catch_up import Fetch, Listen, Read, RunWatch, UnknownPosition, WatchTimeout
from .session_catch_up import SessionReader, SessionWatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from interlock.core.events import StateChange
    from interlock.signals.events.subscriber import Heard

__all__ = ["UnknownPosition", "WatchTimeout", "awatch", "awatch_session", "watch", "watch_session"]


class _Plan(Protocol):
    def take(self) -> list[StateChange]: ...
    def next_action(self) -> Listen | Read | None: ...
    def heard(self, news: Heard) -> None: ...
    def read_failed(self, error: Exception) -> None: ...


def watch(
    fetch: Fetch,
    subscriber: Subscriber | None,
    *,
    after_seq: int = 0,
    poll_s: float = 5.0,
    timeout_s: float | None = None,
) -> Generator[StateChange]:
    """Yield the changes of a run behind `after_seq`, each once, in order of `seq`; ends with the run.

    Args:
        fetch: Reads the history. What it raises at first is passed on; later, a failure that may pass is waited out.
        subscriber: Listens to the run's events; closed at the end, or when the consumer stops (`close()`). None where
            there is no Redis: the history is read every second.
        after_seq: The last change that is known already.
        poll_s: How long it may be quiet before the history is read.
        timeout_s: The longest time that it may take, the consumer's own included; None for no limit.

    Raises:
        WatchTimeout: The time is over.
        UnknownPosition: The history has no change `after_seq`.
    """
    return _follow(RunWatch(fetch, after_seq=after_seq, poll_s=poll_s, timeout_s=timeout_s), subscriber)


def awatch(
    fetch: Fetch,
    subscriber: AsyncSubscriber | None,
    *,
    after_seq: int = 0,
    poll_s: float = 5.0,
    timeout_s: float | None = None,
) -> AsyncGenerator[StateChange]:
    """`watch` for an event loop; `fetch` is called in a thread. Close it with `aclose()` where it is left early."""
    return _afollow(RunWatch(fetch, after_seq=after_seq, poll_s=poll_s, timeout_s=timeout_s), subscriber)


def watch_session(
    reader: SessionReader,
    subscriber: Subscriber | None,
    *,
    after: Mapping[str, int] | None = None,
    poll_s: float = 5.0,
    timeout_s: float | None = None,
) -> Generator[StateChange]:
    """Yield the changes of all runs of a session, each once, in order of `seq` within a run; it does not end.

    Args:
        reader: Reads the session.
        subscriber: Listens to the session's events; closed when the consumer stops. None where there is no Redis.
        after: For runs whose changes are known up to a number, that number. The others are followed from now.
        poll_s: How often the database is asked which runs have moved.
        timeout_s: The longest time that it may take; None for no limit.

    Raises:
        WatchTimeout: The time is over.
    """
    return _follow(SessionWatch(reader, after=after, poll_s=poll_s, timeout_s=timeout_s), subscriber)


def awatch_session(
    reader: SessionReader,
    subscriber: AsyncSubscriber | None,
    *,
    after: Mapping[str, int] | None = None,
    poll_s: float = 5.0,
    timeout_s: float | None = None,
) -> AsyncGenerator[StateChange]:
    """`watch_session` for an event loop; the reader is called in a thread."""
    return _afollow(SessionWatch(reader, after=after, poll_s=poll_s, timeout_s=timeout_s), subscriber)


def _follow(plan: _Plan, subscriber: Subscriber | None) -> Generator[StateChange]:
    if subscriber is None:
        plan.heard(Link.LOST)
    try:
        while True:
            yield from plan.take()
            action = plan.next_action()
            if action is None:
                return
            if isinstance(action, Listen):
                if subscriber is None:
                    time.sleep(action.timeout_s)
                else:
                    plan.heard(subscriber.get(action.timeout_s))
                continue
            try:
                answer = action.ask()
            except Exception as error:  # noqa: BLE001 - the plan raises it again unless it may pass
                plan.read_failed(error)
            else:
                action.tell(answer)
    finally:
        if subscriber is not None:
            subscriber.close()


async def _afollow(plan: _Plan, subscriber: AsyncSubscriber | None) -> AsyncGenerator[StateChange]:
    if subscriber is None:
        plan.heard(Link.LOST)
    try:
        while True:
            for change in plan.take():
                yield change
            action = plan.next_action()
            if action is None:
                return
            if isinstance(action, Listen):
                if subscriber is None:
                    await asyncio.sleep(action.timeout_s)
                else:
                    plan.heard(await subscriber.get(action.timeout_s))
                continue
            try:
                answer = await asyncio.to_thread(action.ask)
            except Exception as error:  # noqa: BLE001 - the plan raises it again unless it may pass
                plan.read_failed(error)
            else:
                action.tell(answer)
    finally:
        if subscriber is not None:
            await subscriber.aclose()
