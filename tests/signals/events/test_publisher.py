"""The publisher: one round trip per commit, never an error, never a long wait, at home in every process."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import redis

from interlock.core.errors import ConfigurationError
from interlock.core.events import Effects, StateChange
from interlock.signals.events.cloud_event import channel, decode
from interlock.signals.events.publisher import EventPublisher
from tests.signals.scripts import RUN_ID, Run, change, opened, patient_publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.servers import RedisServer
    from tests.signals.conftest import Clock

_QUICKLY_S = 5.0  # connecting and one read, 0.5 s each, on a busy machine
_DEADLINE_S = 10.0


@contextmanager
def publisher_of(url: str, **options: Any) -> Iterator[EventPublisher]:
    publisher = patient_publisher(url, **options)
    yield publisher
    publisher.close()


@contextmanager
def listening(client: redis.Redis, pattern: str = "*") -> Iterator[Callable[[int], list[StateChange]]]:
    """Subscribe to all there is; the callable returns that many events as soon as they are there."""
    with client.pubsub() as pubsub:
        pubsub.psubscribe(pattern)
        assert pubsub.get_message(timeout=_DEADLINE_S)["type"] == "psubscribe"

        def received(count: int) -> list[StateChange]:
            changes: list[StateChange] = []
            deadline = time.monotonic() + _DEADLINE_S
            while len(changes) < count and time.monotonic() < deadline:
                if (message := pubsub.get_message(timeout=0.2)) is not None:
                    changes.append(decode(message["data"]))
            return changes

        yield received


def test_a_commits_changes_are_published_in_order_on_the_runs_channel(admin: redis.Redis, redis_url: str) -> None:
    changes = [change(seq, meta={"text": "ü"}) for seq in range(1, 6)]

    name = channel("test", "default", RUN_ID)
    with listening(admin, name) as received, publisher_of(redis_url, prefix="test") as publisher:
        publisher(Effects(changes=changes))
        assert received(5) == changes


def test_a_commit_takes_one_round_trip_and_a_huge_one_goes_in_chunks(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    send = redis.Connection.send_packed_command

    def counting(self: redis.Connection, command: Any, **options: Any) -> None:
        sent.append(1)
        send(self, command, **options)

    with publisher_of(redis_url) as publisher:
        publisher.publish([change(1)])  # connects
        monkeypatch.setattr(redis.Connection, "send_packed_command", counting)
        assert publisher.publish([change(seq) for seq in range(1, 501)])
        assert len(sent) == 1
        assert publisher.publish([change(seq) for seq in range(1, 2501)])
        assert len(sent) == 1 + 3


def test_only_what_is_committed_is_published(admin: redis.Redis, redis_url: str, migrated_url: str) -> None:
    with (
        opened(migrated_url) as database,
        listening(admin) as received,
        publisher_of(redis_url) as publisher,
    ):
        database.after_commit.append(publisher)

        def rolled_back(_connection: object, effects: Effects) -> None:
            effects.changes.append(change(7))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            database.transact(rolled_back)
        run = Run(database)
        run.end()

        assert received(2) == run.changes


def test_an_outage_costs_no_error_one_warning_and_hardly_any_time(
    redis_server: RedisServer, clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "interlock.events")
    attempts: list[float] = []
    connect = redis.Connection.connect

    def counting(self: redis.Connection) -> None:
        attempts.append(clock.now)
        connect(self)

    with publisher_of(redis_server.url(), clock=clock) as publisher:
        assert publisher.publish([change(1)])
        redis_server.stop()
        monkeypatch.setattr(redis.Connection, "connect", counting)

        started = time.monotonic()
        for _ in range(300):
            assert not publisher.publish([change(2)])
            clock.now += 0.1
        assert time.monotonic() - started < _QUICKLY_S

        assert len(set(attempts)) <= 10  # of 300: after 0, 1, 2, 4, 5, 5, … seconds
        assert max(b - a for a, b in pairwise(attempts)) <= 5.2
        redis_server.start()
        clock.now += 6
        assert publisher.publish([change(3)])
        assert publisher.publish([change(4)])

    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"], caplog.text
    assert "300 were not" in caplog.text


def test_a_redis_that_hangs_is_given_up_after_its_time(
    redis_url: str, hanging: Callable[[], AbstractContextManager[None]]
) -> None:
    with closing(EventPublisher(redis_url)) as publisher:
        publisher.publish([change(1)])
        with hanging():
            started = time.monotonic()
            assert not publisher.publish([change(seq) for seq in range(1, 20_001)])
            assert not publisher.publish([change(1)])
            assert time.monotonic() - started < _QUICKLY_S


def test_a_slow_redis_gets_no_more_chunks_than_the_budget_allows(redis_url: str, clock: Clock) -> None:
    class Slow(list[StateChange]):
        def __getitem__(self, index: Any) -> Any:
            clock.now += 1.5
            return super().__getitem__(index)

    with publisher_of(redis_url, clock=clock, budget_s=2.0) as publisher:
        assert publisher.publish(Slow(change(seq) for seq in range(1, 1501)))
        assert not publisher.publish(Slow(change(seq) for seq in range(1, 3501)))


def test_a_forked_child_publishes_by_a_connection_of_its_own(admin: redis.Redis, redis_url: str) -> None:
    with listening(admin) as received, publisher_of(redis_url) as publisher:
        publisher.publish([change(1)])
        mine = _client_id(publisher)
        read_end, write_end = os.pipe()
        if (child := os.fork()) == 0:
            status = 1
            try:
                publisher.publish([change(2)])
                os.write(write_end, str(_client_id(publisher)).encode())
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        publisher.publish([change(3)])

        assert [each.seq for each in received(3)] == [1, 2, 3]
        assert mine == _client_id(publisher) != int(os.read(read_end, 100))
    os.close(read_end)
    os.close(write_end)


def _client_id(publisher: EventPublisher) -> int:
    return int(publisher._own_line().client.client_id())


def test_threads_share_a_publisher(admin: redis.Redis, redis_url: str) -> None:
    with listening(admin) as received, publisher_of(redis_url) as publisher:
        threads = [
            threading.Thread(target=lambda n=n: [publisher.publish([change(50 * n + i)]) for i in range(1, 51)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(each.seq for each in received(400)) == list(range(1, 401))


def test_a_row_that_is_no_event_does_not_silence_the_others(
    admin: redis.Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    odd = [replace(change(2), session_id="no name"), replace(change(3), meta={"x": object()})]
    with listening(admin) as received, publisher_of(redis_url) as publisher:
        publisher.publish([change(1), *odd, change(4)])

        assert [each.seq for each in received(2)] == [1, 4]
    assert caplog.text.count("cannot be published") == 2


def test_what_redis_refuses_is_warned_of_without_the_message(
    admin: redis.Redis, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    admin.acl_setuser("mute", enabled=True, passwords=["+hush-hush"], commands=["+@all", "-publish"], reset=True)
    url = f"redis://mute:hush-hush@127.0.0.1:{redis_server.port}/0"

    with publisher_of(url) as publisher:
        assert not publisher.publish([change(1, meta={"card": "4711"})])

    admin.acl_deluser("mute")
    assert "NoPermissionError" in caplog.text
    assert "4711" not in caplog.text
    assert "hush-hush" not in caplog.text + repr(publisher)


@pytest.mark.parametrize(
    "url", ["http://:hush@h", "redis://:hu/sh@h:1", "redis://:hush@h:1x", "redis://:hush@h/0?colour=red", "hush"]
)
def test_a_url_that_cannot_be_used_is_refused_at_once_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="redis_url") as caught:
        EventPublisher(url)

    assert "hu" not in str(caught.value).replace("redis_url", "")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_closed_publisher_publishes_nothing(redis_url: str) -> None:
    publisher = EventPublisher(redis_url)
    publisher.close()
    publisher.close()

    assert not publisher.publish([change(1)])
