"""Subscribers of another session hear nothing, on a real Redis: neither from channel nor pattern, nor from a forged message."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from interlock.core.events import StateChange
from interlock.signals.events.cloud_event import channel, encode
from interlock.signals.events.publisher import EventPublisher
from interlock.signals.events.subscriber import AsyncSubscriber, Link, Subscriber, Target
from tests.isolation.stage import OURS

if TYPE_CHECKING:
    from tests.isolation.stage import Stage

#: Names that look like `red` to a pattern, a prefix, or a careless split.
MARK = "the last one"
LOOK_ALIKE = ("blue", "re", "redd", "red.", "red-1", "Red", "r.d", "red.red")


def _publish_all(url: str, target: Target, changes: list[StateChange]) -> None:
    """What `red` publishes, the same once more on the listener's own channel, and at last a change that is the listener's."""
    publisher = EventPublisher(url)
    assert publisher.publish(changes)
    publisher.close()
    run_id = target.workflow_id or "its-own"
    own = channel("interlock", target.session_id, run_id)
    with Redis.from_url(url) as redis:
        for change in changes:
            redis.publish(own, encode(change))
        redis.publish(own, encode(replace(changes[0], session_id=target.session_id, workflow_id=run_id, reason=MARK)))


async def _listen_async(url: str, target: Target, changes: list[StateChange]) -> list[StateChange]:
    heard: list[StateChange] = []
    async with AsyncSubscriber(url, target) as subscriber:
        while await subscriber.get(0.5) is not Link.SUBSCRIBED:
            pass
        await asyncio.to_thread(_publish_all, url, target, changes)
        while not heard or heard[-1].reason != MARK:
            news = await subscriber.get(0.5)
            heard += [news] if isinstance(news, StateChange) else []
    return heard


def _listen(url: str, target: Target, changes: list[StateChange]) -> list[StateChange]:
    heard: list[StateChange] = []
    with Subscriber(url, target) as subscriber:
        while subscriber.get(0.5) is not Link.SUBSCRIBED:
            pass
        _publish_all(url, target, changes)
        while not heard or heard[-1].reason != MARK:
            news = subscriber.get(0.5)
            heard += [news] if isinstance(news, StateChange) else []
    return heard


@pytest.mark.timeout(30)
@pytest.mark.parametrize("what", ["a run", "a session"])
@pytest.mark.parametrize("kind", ["thread", "event loop"])
@pytest.mark.parametrize("session", LOOK_ALIKE)
def test_a_subscriber_of_another_session_hears_nothing(
    stage: Stage, redis_url: str, session: str, kind: str, what: str
) -> None:
    run_id = stage.run_in("completed")
    changes = [change for change in stage.worker.changes if change.workflow_id == run_id]
    assert changes
    target = Target(session, run_id if what == "a run" else None)
    in_thread = kind == "thread"
    heard = _listen(redis_url, target, changes) if in_thread else asyncio.run(_listen_async(redis_url, target, changes))
    assert [change.reason for change in heard] == [MARK]


@pytest.mark.timeout(30)
def test_a_subscriber_of_the_session_hears_it(stage: Stage, redis_url: str) -> None:
    run_id = stage.run_in("completed")
    changes = [change for change in stage.worker.changes if change.workflow_id == run_id]
    heard = _listen(redis_url, Target(OURS), changes)
    assert [change.seq for change in heard][: len(changes)] == [change.seq for change in changes]
