"""The subscribers, for threads and for event loops: they reconnect by themselves, and say when they may have missed some."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from interlock.core.errors import ConfigurationError, InvalidName
from interlock.core.events import StateChange
from interlock.signals.events.cloud_event import channel, encode
from interlock.signals.events.subscriber import AsyncSubscriber, Heard, Link, Subscriber, Target
from tests.servers import wait_until
from tests.signals.scripts import RUN_ID, change

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager

    import redis

    from tests.servers import RedisServer
    from tests.signals.conftest import Clock

_DEADLINE_S = 10.0
_MINE = Target("default", RUN_ID)


class _Listener(Protocol):
    def get(self, timeout_s: float) -> Heard: ...
    def close(self) -> None: ...


class _Blocking:
    """An `AsyncSubscriber` with an event loop of its own, so that one test serves both kinds."""

    def __init__(self, url: str, target: Target, **options: Callable[[], float]) -> None:
        self._runner = asyncio.Runner()
        self._subscriber = AsyncSubscriber(url, target, **options)

    def get(self, timeout_s: float) -> Heard:
        return self._run(self._subscriber.get(timeout_s))

    def _run(self, step: Coroutine[object, object, Heard]) -> Heard:
        return self._runner.run(step)

    def close(self) -> None:
        self._runner.run(self._subscriber.aclose())
        self._runner.close()


@pytest.fixture(params=["thread", "loop"])
def listen(request: pytest.FixtureRequest) -> Iterator[Callable[..., _Listener]]:
    """Opens a subscriber of either kind, closed at the end."""
    kind = {"thread": Subscriber, "loop": _Blocking}[request.param]
    opened: list[_Listener] = []

    def open_one(url: str, target: Target = _MINE, **options: Callable[[], float]) -> _Listener:
        opened.append(kind(url, target, **options))
        return opened[-1]

    yield open_one
    for subscriber in opened:
        subscriber.close()


def next_of(subscriber: _Listener, timeout_s: float = _DEADLINE_S) -> Heard:
    """What is heard next; None when nothing came in time."""
    deadline = time.monotonic() + timeout_s
    while (heard := subscriber.get(0.2)) is None and time.monotonic() < deadline:
        pass
    return heard


def test_the_subscription_is_told_of_before_any_event(
    listen: Callable[..., _Listener], redis_url: str, admin: redis.Redis
) -> None:
    subscriber = listen(redis_url)
    assert next_of(subscriber) is Link.SUBSCRIBED

    admin.publish(_MINE.name, encode(change(1)))

    assert next_of(subscriber) == change(1)
    assert subscriber.get(0) is None


def test_only_the_runs_own_channel_is_heard(
    listen: Callable[..., _Listener], redis_url: str, admin: redis.Redis
) -> None:
    subscriber = listen(redis_url)
    assert next_of(subscriber) is Link.SUBSCRIBED

    other = "6a1c4a5e-0000-4000-8000-000000000002"
    admin.publish(channel("interlock", "default", other), encode(change(1, workflow_id=other)))
    admin.publish(channel("staging", "default", RUN_ID), encode(change(2)))
    admin.publish(_MINE.name, encode(change(3)))

    assert next_of(subscriber) == change(3)


def test_a_session_hears_all_its_runs_and_no_other_session(
    listen: Callable[..., _Listener], redis_url: str, admin: redis.Redis
) -> None:
    subscriber = listen(redis_url, Target("a"))
    assert next_of(subscriber) is Link.SUBSCRIBED

    heard = [change(1, session_id="a"), change(1, session_id="a", workflow_id="other")]
    for each in [change(1, session_id="b"), change(1, session_id="ab"), change(1, session_id="a.b"), *heard]:
        admin.publish(channel("interlock", each.session_id, each.workflow_id), encode(each))

    assert [next_of(subscriber), next_of(subscriber)] == heard


def test_messages_that_do_not_belong_on_the_channel_are_ignored_with_one_warning(
    listen: Callable[..., _Listener], redis_url: str, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    subscriber = listen(redis_url)
    assert next_of(subscriber) is Link.SUBSCRIBED

    for message in (b"hello", encode(change(1, session_id="b")), encode(change(1, workflow_id="other")), b"{}"):
        admin.publish(_MINE.name, message)
    admin.publish(_MINE.name, encode(change(2)))

    assert next_of(subscriber) == change(2)
    assert caplog.text.count("is ignored") == 1


def test_a_restart_of_redis_is_told_of_twice_and_then_events_come_again(
    listen: Callable[..., _Listener], redis_server: RedisServer, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "interlock.events")
    subscriber = listen(redis_server.url())
    assert next_of(subscriber) is Link.SUBSCRIBED

    redis_server.stop()
    assert next_of(subscriber) is Link.LOST
    assert next_of(subscriber, 0.5) is None  # it tries again, and says nothing of it
    redis_server.start()
    assert next_of(subscriber) is Link.SUBSCRIBED
    admin.publish(_MINE.name, encode(change(1)))
    assert next_of(subscriber) == change(1)

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_redis_may_be_away_at_first(listen: Callable[..., _Listener], redis_server: RedisServer) -> None:
    redis_server.stop()
    subscriber = listen(redis_server.url())
    assert next_of(subscriber) is Link.LOST

    redis_server.start()

    assert next_of(subscriber) is Link.SUBSCRIBED


@pytest.mark.usefixtures("small_buffers")
def test_a_slow_subscriber_that_redis_throws_off_comes_back_and_says_so(
    listen: Callable[..., _Listener], redis_url: str, admin: redis.Redis
) -> None:
    subscriber = listen(redis_url)
    assert next_of(subscriber) is Link.SUBSCRIBED

    bulky = encode(change(1, meta={"text": "x" * 50_000}))
    while admin.publish(_MINE.name, bulky):  # until nobody receives it any more
        pass

    heard = [next_of(subscriber)]
    while heard[-1] is not Link.SUBSCRIBED:
        heard.append(next_of(subscriber))
    assert Link.LOST in heard
    assert all(isinstance(each, Link | StateChange) for each in heard)


def test_a_line_that_is_silent_in_spite_of_a_ping_counts_as_lost(
    listen: Callable[..., _Listener],
    redis_url: str,
    clock: Clock,
    hanging: Callable[[], AbstractContextManager[None]],
) -> None:
    subscriber = listen(redis_url, clock=clock)
    assert next_of(subscriber) is Link.SUBSCRIBED
    for _ in range(5):  # answered pings
        clock.now += 11
        assert subscriber.get(5) is None  # until the answer comes
        assert subscriber.get(0.2) is None

    with hanging():
        clock.now += 11
        assert subscriber.get(0.1) is None
        clock.now += 11
        assert subscriber.get(0.1) is Link.LOST

    clock.now += 11
    assert next_of(subscriber) is Link.SUBSCRIBED


def test_a_closed_subscriber_says_so(redis_url: str) -> None:
    with Subscriber(redis_url, _MINE) as subscriber:
        pass
    subscriber.close()

    with pytest.raises(RuntimeError, match="closed"):
        subscriber.get(0)


def test_closing_leaves_no_connection_behind(
    listen: Callable[..., _Listener], redis_url: str, admin: redis.Redis
) -> None:
    subscriber = listen(redis_url)
    assert next_of(subscriber) is Link.SUBSCRIBED
    assert admin.pubsub_numsub(_MINE.name) == [(_MINE.name.encode(), 1)]

    if isinstance(subscriber, _Blocking):
        subscriber._runner.run(subscriber._subscriber.aclose())
    else:
        subscriber.close()

    wait_until(lambda: not admin.client_list(_type="pubsub"), _DEADLINE_S, "Redis has seen the end of the connection")


@pytest.mark.parametrize("kind", [Subscriber, AsyncSubscriber])
def test_a_target_or_url_that_cannot_be_used_is_refused_at_once(kind: type[Subscriber | AsyncSubscriber]) -> None:
    with pytest.raises(InvalidName):
        kind("redis://localhost", Target("a", "*"))
    with pytest.raises(ConfigurationError):
        kind("amqp://localhost", _MINE)
