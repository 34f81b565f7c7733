"""Events that are left to a thread: published soon, in order, in few writes, and by a thread that no signal finds."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import redis

from interlock.core.events import Effects
from interlock.signals.events.background_publish import BackgroundPublish
from tests.servers import wait_until
from tests.signals.scripts import change

from .test_publisher import listening, publisher_of

if TYPE_CHECKING:
    import pytest

    from interlock.signals.events.publisher import EventPublisher

_DEADLINE_S = 10.0


def _tell(publisher: EventPublisher, *numbers: int) -> None:
    """Tell of a commit."""
    publisher(Effects(changes=[change(number) for number in numbers]))


def test_what_is_left_to_the_thread_is_heard_while_its_process_does_something_else(
    admin: redis.Redis, redis_url: str
) -> None:
    with listening(admin) as received, publisher_of(redis_url) as publisher, publisher.in_background():
        _tell(publisher, 1, 2)
        assert [each.seq for each in received(2)] == [1, 2]


def test_whoever_tells_something_takes_what_waits_along_in_front(
    admin: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlock.signals.events.background_publish._WITHIN_S", 60)
    writes: list[Any] = []
    send = redis.Connection.send_packed_command

    def counting(self: redis.Connection, command: Any, **options: Any) -> None:
        writes.append(command)
        send(self, command, **options)

    with listening(admin) as received, publisher_of(redis_url) as publisher:
        publisher.publish([change(1)])
        with monkeypatch.context() as patch, publisher.in_background():
            patch.setattr(redis.Connection, "send_packed_command", counting)
            for number in (2, 3):
                _tell(publisher, number)
            assert not writes
            assert publisher.publish([change(4)], first=[("LPUSH", "a", "b")], wait=False)
            assert len(writes) == 1
            _tell(publisher, 5)
            publisher.flush()
            assert len(writes) == 2
            publisher.flush()
            assert len(writes) == 2, "nothing was left"
            _tell(publisher, 6)
            publisher.close()
        assert [each.seq for each in received(6)] == [1, 2, 3, 4, 5, 6]


def test_behind_the_block_nothing_is_left_to_the_thread(
    admin: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interlock.signals.events.background_publish._WITHIN_S", 60)
    with listening(admin) as received, publisher_of(redis_url) as publisher:
        with publisher.in_background():
            _tell(publisher, 1)
        assert [each.seq for each in received(1)] == [1], "what waits is published at the end"
        _tell(publisher, 2)
        assert [each.seq for each in received(1)] == [2]


def test_the_order_is_kept_whoever_tells(admin: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is slow between taking what waits and sending it, and the process tells something else meanwhile."""
    taken = threading.Event()

    def slowly(place: str, subject: str) -> int:  # noqa: ARG001 - as a fault point is called
        if threading.current_thread() is not threading.main_thread():
            taken.set()
            time.sleep(0.01)
        return 1

    monkeypatch.setattr("interlock.signals.events.publisher.fault_point", slowly)
    with listening(admin) as received, publisher_of(redis_url) as publisher, publisher.in_background():
        for number in range(1, 21, 2):
            taken.clear()
            _tell(publisher, number)
            assert taken.wait(_DEADLINE_S)
            publisher.publish([change(number + 1)], wait=False)
        assert [each.seq for each in received(20)] == list(range(1, 21))


def test_without_a_thread_what_happens_is_told_at_once(
    admin: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_to_be_had(self: threading.Thread) -> None:  # noqa: ARG001 - a method's
        message = "can't start new thread"
        raise RuntimeError(message)

    with listening(admin) as received, publisher_of(redis_url) as publisher, publisher.in_background():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_to_be_had)
            _tell(publisher, 1)
            assert [each.seq for each in received(1)] == [1]
        _tell(publisher, 2)
        assert [each.seq for each in received(1)] == [2]


def test_its_thread_takes_no_signal_and_ends_with_it() -> None:
    masks: list[set[signal.Signals | int]] = []
    background = BackgroundPublish(lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    background.add([change(1)])
    wait_until(lambda: masks, _DEADLINE_S, "it was told")
    assert {signal.SIGUSR1, signal.SIGTERM, signal.SIGINT} <= masks[0]
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, []), "its maker hears as before"
    thread = background._thread
    assert thread is not None
    background.stop()
    thread.join(_DEADLINE_S)
    assert not thread.is_alive()


def test_while_redis_is_away_nothing_piles_up(redis_server: Any, redis_url: str) -> None:
    with publisher_of(redis_url) as publisher, publisher.in_background():
        publisher.publish([change(1)])
        redis_server.stop()
        try:
            for number in range(2, 300):
                _tell(publisher, number)
            wait_until(lambda: not publisher._line.background.waits, _DEADLINE_S, "they are dropped")
        finally:
            redis_server.start()
