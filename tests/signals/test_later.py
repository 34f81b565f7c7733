"""Events that a ride leaves to be told later: soon, in order, in few writes, and by a thread that no signal finds."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis

from interlock.core.events import Effects
from interlock.signals.later import Later
from interlock.signals.overlap import at_end, ending
from interlock.signals.ride import Ride, riding
from tests.servers import wait_until

from .scripts import change
from .test_publisher import listening, publisher_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from interlock.signals.publisher import EventPublisher

_DEADLINE_S = 10.0


@contextmanager
def _on_a_ride() -> Iterator[None]:
    ride = Ride("carrier", frozenset(), frozenset(), limit_s=30, may_go_on=lambda: True)
    with riding(ride):
        yield


def _reported(publisher: EventPublisher, *numbers: int) -> None:
    """Tell of a commit as a child does at the end of a tracer."""
    with ending():
        at_end(lambda: publisher(Effects(changes=[change(number) for number in numbers])))


def test_what_a_ride_tells_is_heard_while_its_process_does_something_else(admin: redis.Redis, redis_url: str) -> None:
    with listening(admin) as received, publisher_of(redis_url) as publisher, _on_a_ride():
        _reported(publisher, 1, 2)
        assert [each.seq for each in received(2)] == [1, 2]


def test_whoever_tells_something_takes_what_waits_along_in_front(
    admin: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlock.signals.later._WITHIN_S", 60)
    writes: list[Any] = []
    send = redis.Connection.send_packed_command

    def counting(self: redis.Connection, command: Any, **options: Any) -> None:
        writes.append(command)
        send(self, command, **options)

    with listening(admin) as received, publisher_of(redis_url) as publisher:
        publisher.publish([change(1)])
        with monkeypatch.context() as patch, _on_a_ride():
            patch.setattr(redis.Connection, "send_packed_command", counting)
            for number in (2, 3):
                _reported(publisher, number)
            assert not writes
            assert publisher.publish([change(4)], ahead=[("LPUSH", "a", "b")], wait=False)
            assert len(writes) == 1
            _reported(publisher, 5)
            publisher.flush()
            assert len(writes) == 2
            publisher.flush()
            assert len(writes) == 2, "nothing was left"
        assert [each.seq for each in received(5)] == [1, 2, 3, 4, 5]


def test_elsewhere_nothing_is_left_for_later(
    admin: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlock.signals.later._WITHIN_S", 60)
    with listening(admin) as received, publisher_of(redis_url) as publisher:
        _reported(publisher, 1)  # no ride
        with _on_a_ride():
            publisher(Effects(changes=[change(2)]))  # a body's own commit
        assert [each.seq for each in received(2)] == [1, 2]


def test_the_order_is_kept_whoever_tells(admin: redis.Redis, redis_url: str) -> None:
    with listening(admin) as received, publisher_of(redis_url) as publisher, _on_a_ride():
        for number in range(1, 601, 2):
            _reported(publisher, number)
            publisher.publish([change(number + 1)], wait=False)
        assert [each.seq for each in received(600)] == list(range(1, 601))


def test_its_thread_takes_no_signal_and_ends_with_it() -> None:
    masks: list[set[signal.Signals | int]] = []
    later = Later(lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    later.add([change(1)])
    wait_until(lambda: masks, _DEADLINE_S, "it was told")
    assert {signal.SIGUSR1, signal.SIGTERM, signal.SIGINT} <= masks[0]
    thread = later._thread
    assert thread is not None
    later.stop()
    thread.join(_DEADLINE_S)
    assert not thread.is_alive()


def test_while_redis_is_away_nothing_piles_up(redis_server: Any, redis_url: str) -> None:
    with publisher_of(redis_url) as publisher, _on_a_ride():
        publisher.publish([change(1)])
        redis_server.stop()
        try:
            for number in range(2, 300):
                _reported(publisher, number)
            wait_until(lambda: not publisher._line.later.waits, _DEADLINE_S, "they are dropped")
        finally:
            redis_server.start()
