"""Watching real runs: a database, a Redis that comes and goes, and a writer; every change arrives once and in order."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import redis

from interlock import Client
from interlock.client.following.catch_up import WatchTimeout
from interlock.client.following.watching import awatch, watch
from interlock.core.errors import ConfigurationError
from interlock.core.queries.history import HistoryReader
from interlock.core.settings import Settings
from interlock.signals.events.subscriber import AsyncSubscriber, Subscriber, Target
from tests.servers import wait_until
from tests.signals.scripts import Run, opened, patient_publisher

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

    from interlock.core.database.database import Database
    from interlock.core.events import Effects, StateChange
    from tests.servers import RedisServer

_DEADLINE_S = 20.0
_OUTAGE_S = 5.0
_NEVER_S = 600.0  # a poll that does not come in time to help


@contextmanager
def publishing(database_url: str, redis_url: str) -> Iterator[Database]:
    """A database that publishes what is committed in it."""
    with opened(database_url) as database:
        publisher = patient_publisher(redis_url)
        database.after_commit.append(publisher)
        yield database
        publisher.close()


@pytest.fixture
def watched(migrated_url: str, redis_server: RedisServer) -> Iterator[Database]:
    with publishing(migrated_url, redis_server.url()) as database:
        yield database


@pytest.fixture
def watched_postgres(migrated_postgres_url: str, redis_server: RedisServer) -> Iterator[Database]:
    with publishing(migrated_postgres_url, redis_server.url()) as database:
        yield database


@pytest.fixture
def watched_sqlite(migrated_sqlite_url: str, redis_server: RedisServer) -> Iterator[Database]:
    """In SQLite alone, for what has nothing to do with the database."""
    with publishing(migrated_sqlite_url, redis_server.url()) as database:
        yield database


class Reader:
    """A consumer in a thread of its own, and what it has received."""

    def __init__(self, source: Callable[[list[StateChange]], None]) -> None:
        self.got: list[StateChange] = []
        self._error: BaseException | None = None
        self._source = source
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self._thread.start()

    def _consume(self) -> None:
        try:
            self._source(self.got)
        except BaseException as error:  # noqa: BLE001 - handed to the test by `end`
            self._error = error

    def has(self, count: int) -> None:
        """Wait until that many changes were received."""
        wait_until(lambda: self._error or len(self.got) >= count, _DEADLINE_S, f"{count} changes, not {len(self.got)}")
        self._raise()

    def end(self) -> list[StateChange]:
        """Wait until the watch has ended and return what it gave."""
        self._thread.join(_DEADLINE_S)
        self._raise()
        assert not self._thread.is_alive(), f"the watch has not ended; it gave {len(self.got)}"
        return self.got

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


class Watcher(Protocol):
    """Starts a reader of a run; without a URL, one that has no Redis."""

    def __call__(self, run: Run, url: str | None, **options: Any) -> Reader: ...


def _fetch(run: Run) -> Callable[[int], list[StateChange]]:
    return partial(HistoryReader(run.database, run.session_id).changes, run.id)


def _from_thread(run: Run, url: str | None, **options: Any) -> Reader:
    subscriber = Subscriber(url, Target(run.session_id, run.id)) if url else None
    return Reader(lambda got: got.extend(watch(_fetch(run), subscriber, **options)))


def _from_loop(run: Run, url: str | None, **options: Any) -> Reader:
    async def consume(got: list[StateChange]) -> None:
        subscriber = AsyncSubscriber(url, Target(run.session_id, run.id)) if url else None
        async for each in awatch(_fetch(run), subscriber, **options):
            got.append(each)  # noqa: PERF401 - others look at the list while it grows

    return Reader(lambda got: asyncio.run(consume(got)))


@pytest.fixture(params=[_from_thread, _from_loop], ids=["thread", "loop"])
def start_watch(request: pytest.FixtureRequest) -> Watcher:
    """Watches from a thread or from an event loop."""
    watcher: Watcher = request.param
    return watcher


@contextmanager
def subscribers(url: str, count: int) -> Iterator[None]:
    """Wait until Redis has that many subscriptions."""
    with redis.Redis.from_url(url) as client:
        wait_until(lambda: len(client.client_list(_type="pubsub")) == count, _DEADLINE_S, f"{count} subscriptions")
        yield


def test_a_watch_gives_every_change_as_it_is_committed(
    start_watch: Watcher, watched: Database, redis_server: RedisServer
) -> None:
    run = Run(watched)
    reader = start_watch(run, redis_server.url(), poll_s=_NEVER_S)
    reader.has(1)
    for count in (1, 2, 50, 1):
        run.move(count)
        reader.has(len(run.changes))  # by Redis: no poll comes
    run.end()

    assert reader.end() == run.changes


def test_a_watch_that_starts_late_gives_what_was_before_too(
    start_watch: Watcher, watched: Database, redis_server: RedisServer
) -> None:
    run = Run(watched)
    run.move(30)
    stop = threading.Event()
    writer = threading.Thread(target=_move_until, args=(run, stop))
    writer.start()
    reader = start_watch(run, redis_server.url(), poll_s=_NEVER_S)
    reader.has(60)
    stop.set()
    writer.join()
    run.end()

    assert reader.end() == run.changes


def _move_until(run: Run, stop: threading.Event) -> None:
    while not stop.wait(0.002):
        run.move()


def test_a_run_that_is_over_is_given_from_the_history(
    start_watch: Watcher, watched: Database, redis_server: RedisServer
) -> None:
    run = Run(watched)
    run.move(1500)
    run.end()

    assert start_watch(run, redis_server.url()).end() == run.changes
    assert start_watch(run, redis_server.url(), after_seq=1501).end() == run.changes[1501:]
    assert start_watch(run, redis_server.url(), after_seq=1502).end() == []
    assert start_watch(run, None).end() == run.changes


def test_redis_stopped_for_five_seconds_in_the_middle_costs_no_change(
    watched_postgres: Database, redis_server: RedisServer
) -> None:
    run = Run(watched_postgres)
    stop = threading.Event()
    writer = threading.Thread(target=_move_until, args=(run, stop))
    writer.start()
    readers = [start(run, redis_server.url(), poll_s=_NEVER_S) for start in (_from_thread, _from_loop)]
    for reader in readers:
        reader.has(20)

    redis_server.kill()
    started = time.monotonic()
    behind = len(run.changes)
    for reader in readers:
        reader.has(behind + 20)  # by the history alone
    wait_until(lambda: time.monotonic() - started >= _OUTAGE_S, _DEADLINE_S, "the outage is over")
    redis_server.start()
    with subscribers(redis_server.url(), 2):
        for reader in readers:
            reader.has(len(run.changes) + 20)
    stop.set()
    writer.join()
    run.end()
    Republisher(run, redis_server.url())()  # the publisher may have paused again

    for reader in readers:
        assert reader.end() == run.changes


def test_a_watch_that_begins_without_redis_goes_on_with_it(
    start_watch: Watcher, watched_sqlite: Database, redis_server: RedisServer
) -> None:
    redis_server.stop()
    run = Run(watched_sqlite)
    reader = start_watch(run, redis_server.url(), poll_s=_NEVER_S)
    run.move(3)
    reader.has(4)

    redis_server.start()
    with subscribers(redis_server.url(), 1):
        run.move(3)
    run.end()
    # The publisher pauses after its failure: the history is read at the subscription, and what comes is a gap or an end.
    Republisher(run, redis_server.url())()

    assert reader.end() == run.changes


class Republisher:
    """Publishes the last change again, as another process would have."""

    def __init__(self, run: Run, url: str) -> None:
        self._run, self._url = run, url

    def __call__(self) -> None:
        publisher = patient_publisher(self._url)
        assert publisher.publish(self._run.changes[-1:])
        publisher.close()


def test_what_was_committed_and_never_published_is_found_when_it_is_quiet(
    start_watch: Watcher, migrated_sqlite_url: str, redis_server: RedisServer
) -> None:
    with opened(migrated_sqlite_url) as database:  # no publisher: the process died between commit and publish
        run = Run(database)
        reader = start_watch(run, redis_server.url(), poll_s=0.2)
        reader.has(1)
        with subscribers(redis_server.url(), 1):
            run.move(2)
            reader.has(3)
        run.end()

        assert reader.end() == run.changes


def test_messages_that_are_repeated_lost_and_out_of_order_change_nothing(
    start_watch: Watcher, migrated_sqlite_url: str, redis_server: RedisServer
) -> None:
    publisher = patient_publisher(redis_server.url())
    with opened(migrated_sqlite_url) as database:
        run = Run(database)
        reader = start_watch(run, redis_server.url(), poll_s=_NEVER_S)
        reader.has(1)
        with subscribers(redis_server.url(), 1):
            run.move(9)
        order = [3, 2, 2, 1, 9, 5, 0, 9]  # 4, 6, 7 and 8 are lost
        publisher.publish([run.changes[index] for index in order])
        reader.has(10)
        run.end()
        publisher.publish([run.changes[-1], run.changes[-1]])

        assert reader.end() == run.changes
    publisher.close()


def test_a_consumer_so_slow_that_redis_throws_it_off_gets_everything(
    watched_sqlite: Database, redis_server: RedisServer
) -> None:
    with redis.Redis.from_url(redis_server.url()) as admin:
        limits = admin.config_get("client-output-buffer-limit")["client-output-buffer-limit"]
        admin.config_set("client-output-buffer-limit", "pubsub 100000 0 0")
        run = Run(watched_sqlite)
        changes = watch(_fetch(run), Subscriber(redis_server.url(), Target("default", run.id)), poll_s=_NEVER_S)
        got = [next(changes)]
        run.move(meta={"text": "x" * 100})
        got.append(next(changes))

        while admin.client_list(_type="pubsub"):  # while the consumer sits on the change it was given
            run.move(50, meta={"text": "x" * 2000})
        run.end()
        got += changes
        admin.config_set("client-output-buffer-limit", limits)

    assert got == run.changes


def test_what_is_rolled_back_is_never_seen(start_watch: Watcher, watched: Database, redis_server: RedisServer) -> None:
    run = Run(watched)
    reader = start_watch(run, redis_server.url(), poll_s=0.1)
    reader.has(1)

    def rolled_back(connection: Any, effects: Effects) -> None:
        effects.changes.append(run._insert(connection, 2, "failed", "workflow_step"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        watched.transact(rolled_back)
    run.move()
    run.end()

    assert reader.end() == run.changes


def test_a_watch_that_is_closed_early_leaves_no_connection(watched_sqlite: Database, redis_server: RedisServer) -> None:
    run = Run(watched_sqlite)
    changes = watch(_fetch(run), Subscriber(redis_server.url(), Target("default", run.id)))
    assert next(changes).seq == 1

    async def one_and_stop() -> None:
        subscriber = AsyncSubscriber(redis_server.url(), Target("default", run.id))
        achanges = awatch(_fetch(run), subscriber)
        assert (await anext(achanges)).seq == 1
        with subscribers(redis_server.url(), 2):
            await achanges.aclose()

    asyncio.run(one_and_stop())
    changes.close()

    with subscribers(redis_server.url(), 0), pytest.raises(StopIteration):
        next(changes)


def test_a_cancelled_task_leaves_no_connection(watched_sqlite: Database, redis_server: RedisServer) -> None:
    run = Run(watched_sqlite)

    async def cancelled() -> None:
        subscriber = AsyncSubscriber(redis_server.url(), Target("default", run.id))

        async def consume() -> None:
            async for _ in awatch(_fetch(run), subscriber):
                received.set()

        received = asyncio.Event()
        task = asyncio.create_task(consume())
        await received.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    with subscribers(redis_server.url(), 0):
        pass


def test_the_time_that_was_given_is_kept(
    start_watch: Watcher, watched_sqlite: Database, redis_server: RedisServer
) -> None:
    run = Run(watched_sqlite)
    for url in (redis_server.url(), None):
        reader = start_watch(run, url, timeout_s=0.3)
        with pytest.raises(WatchTimeout):
            reader.end()
        assert reader.got == run.changes


# a session


def _client(database: Database, url: str, poll_s: float) -> Client:
    address = database.engine.url.render_as_string(hide_password=False)
    settings = Settings(watch_poll_s=poll_s)
    return Client(database_url=address, redis_url=url, session_id="mine", settings=settings)


def _session_from_thread(database: Database, url: str, *, poll_s: float, **options: Any) -> Generator[StateChange]:
    with _client(database, url, poll_s) as client:
        yield from client.watch_session(**options)


def _session_from_loop(database: Database, url: str, *, poll_s: float, **options: Any) -> Generator[StateChange]:
    with _client(database, url, poll_s) as client, asyncio.Runner() as runner:
        changes = client.awatch_session(**options)
        try:
            while True:
                yield runner.run(_next(changes))
        finally:
            runner.run(changes.aclose())


async def _next(changes: AsyncGenerator[StateChange]) -> StateChange:
    return await anext(changes)


@pytest.mark.parametrize("watch_it", [_session_from_thread, _session_from_loop], ids=["thread", "loop"])
def test_a_session_gives_each_runs_changes_once_in_order_and_nothing_of_another(
    watch_it: Callable[..., Generator[StateChange]], watched: Database, redis_server: RedisServer
) -> None:
    old, over, foreign = Run(watched, "mine"), Run(watched, "mine"), Run(watched, "other")
    over.end()
    enough = threading.Event()
    changes = watch_it(watched, redis_server.url(), poll_s=_NEVER_S)
    reader = Reader(lambda got: _consume_until(enough, changes, got))
    with subscribers(redis_server.url(), 1):
        # "From now" begins when the runs' heads are read, just after the subscription: a change that is seen ends the wait.
        wait_until(lambda: old.move() or reader.got, _DEADLINE_S, "the watch has begun")
    known = reader.got[0].seq - 1
    foreign.move(5)
    new = Run(watched, "mine")
    for run in (old, new, old, new):
        run.move(3)
    redis_server.kill()
    missed = Run(watched, "mine")  # comes and goes while nobody hears
    missed.end()
    old.move()
    reader.has(len(old.changes) - known + len(new.changes) + 2)
    redis_server.start()
    with subscribers(redis_server.url(), 1):
        new.end()
        old.end()
        for run in (new, old):
            Republisher(run, redis_server.url())()
    expected = old.changes[known:] + new.changes + missed.changes
    reader.has(len(expected))

    enough.set()
    Republisher(Run(watched, "mine"), redis_server.url())()
    got = reader.end()

    for run in (old, new, missed):
        mine = [each for each in got if each.workflow_id == run.id]
        assert mine == [each for each in expected if each.workflow_id == run.id]
    assert len(got) == len(expected)


def _consume_until(enough: threading.Event, changes: Generator[StateChange], got: list[StateChange]) -> None:
    for each in changes:
        if enough.is_set():
            break
        got.append(each)
    changes.close()


def test_a_session_is_not_followed_without_its_database() -> None:
    with Client(broker_url="memory://", settings=Settings(database_url=None)) as client:
        for follow in (client.watch_session, client.awatch_session):
            with pytest.raises(ConfigurationError, match="give it a database_url"):
                follow()
