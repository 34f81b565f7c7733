"""One write for a commit's messages and events says what the two clients would have said, and gives way to them where it must."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from kombu import Producer

from interlock.core.database.database import open_database
from interlock.core.events import Dispatch, Effects, Interrupt
from interlock.core.settings import Settings
from interlock.signals.deferred_work import at_end, ending, is_ending
from interlock.signals.dispatch.combined_send import QuickPost
from interlock.signals.dispatch.dispatcher import Dispatcher
from interlock.signals.events.publisher import FEW, EventPublisher
from tests.signals.scripts import RUN_ID, change, patient_publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.servers import RedisServer


def _due(number: int, spec: dict[str, Any] | None = None) -> Dispatch:
    step_id = f"6a1c4a5e-0000-4000-8000-{number:012}"
    return Dispatch(RUN_ID, "default", step_id, f"k{number}", "shop.pay", f"{step_id}.1", 1, 0, spec or {})


class Post:
    """A quick post with what it stands before; counts what kombu has sent."""

    def __init__(self, broker_url: str, events_url: str, database_url: str, *, patient: bool, **options: Any) -> None:
        self.app = Celery("producer", broker=broker_url, set_as_current=False)
        self.app.conf.update(options)
        self.database = open_database(database_url)
        self.publisher = (patient_publisher if patient else EventPublisher)(events_url)
        self.between: list[Effects] = []
        self.dispatcher = Dispatcher(self.app, self.database, Settings())
        self.post = QuickPost(self.dispatcher, self.publisher, self.between.append)
        self.by_kombu = 0

    def close(self) -> None:
        self.publisher.close()
        self.database.dispose()
        self.app.close()

    def fetched(self, queue: str = "celery") -> list[dict[str, Any]]:
        """Everything in a queue as a consumer gets it, without what differs between any two messages."""
        found = []
        with self.app.connection_for_read() as connection:
            while (message := connection.default_channel.basic_get(queue, no_ack=True)) is not None:
                properties = {name: value for name, value in message.properties.items() if name != "delivery_tag"}
                found.append({"payload": message.payload, "headers": message.headers, "properties": properties})
        return found


@pytest.fixture
def opened(migrated_sqlite_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Post]]:
    """Open posts whose broker is the Redis of the test; another address for the events where one is given."""
    posts: list[Post] = []

    def open_post(*, events_url: str = redis_url, patient: bool = True, **options: Any) -> Post:
        post = Post(redis_url, events_url, migrated_sqlite_url, patient=patient, **options)
        posts.append(post)
        publish = Producer.publish

        def counted(self: Producer, *args: Any, **kwargs: Any) -> Any:
            if getattr(self._batch_local, "current", None) is None or not hasattr(
                self._batch_local.current, "commands"
            ):
                post.by_kombu += 1
            return publish(self, *args, **kwargs)

        monkeypatch.setattr(Producer, "publish", counted)
        return post

    yield open_post
    for post in posts:
        post.close()


@contextmanager
def _heard(client: redis.Redis) -> Iterator[Callable[[int], list[Any]]]:
    with client.pubsub() as pubsub:
        pubsub.psubscribe("*")
        pubsub.get_message(timeout=10)
        yield lambda count: [pubsub.get_message(timeout=10) for _ in range(count)]


@pytest.mark.parametrize("spec", [{}, {"priority": 7}, {"queue": "else", "timeout_s": 10}])
def test_what_is_written_is_what_kombu_would_have_written(opened: Callable[..., Post], spec: dict[str, Any]) -> None:
    post = opened()
    spec = {**spec, "args": [{"b": "ü"}, None], "kwargs": {"c": 1.5}}
    for number in (1, 2, 3):
        post.post(Effects(changes=[change(number)], dispatches=[_due(number, spec)]))
    assert post.by_kombu == 1  # the first of its kind
    post.dispatcher(Effects(dispatches=[_due(2, spec)]))
    _, written, _, by_kombu = post.fetched(spec.get("queue", "celery"))
    assert written == by_kombu
    assert written["payload"][:2] == [spec["args"], spec["kwargs"]]


def test_messages_and_events_go_out_in_one_write(
    opened: Callable[..., Post], admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = opened()
    post.post(Effects(changes=[change(1)], dispatches=[_due(1)]))
    post.post(Effects(changes=[change(2)], dispatches=[_due(2)]))
    writes: list[Any] = []
    send = redis.Connection.send_packed_command

    def counting(self: redis.Connection, command: Any, **options: Any) -> None:
        writes.append(command)
        send(self, command, **options)

    with _heard(admin) as heard, monkeypatch.context() as patch:
        patch.setattr(redis.Connection, "send_packed_command", counting)
        changes = [change(seq) for seq in (3, 4)]
        post.post(Effects(changes=changes, dispatches=[_due(number) for number in (3, 4, 5)]))
        assert len(writes) == 1
        assert [message["type"] for message in heard(2)] == ["pmessage"] * 2
    assert len(post.fetched()) == 5


@pytest.mark.parametrize(
    "why", ["another Redis", "a key prefix", "too many", "a body is to be stopped", "nothing is due"]
)
def test_where_it_cannot_be_one_write_each_does_its_own(
    opened: Callable[..., Post], redis_url: str, admin: redis.Redis, why: str
) -> None:
    options: dict[str, Any] = {}
    if why == "another Redis":
        options["events_url"] = redis_url.replace("127.0.0.1", "localhost")
    if why == "a key prefix":
        options["broker_transport_options"] = {"global_keyprefix": "ours:"}
    post = opened(**options)
    post.dispatcher(Effects(dispatches=[_due(0)]))
    count = {"too many": FEW + 1, "nothing is due": 0}.get(why, 1)
    effects = Effects(changes=[change(1)], dispatches=[_due(number) for number in range(count)])
    if why == "a body is to be stopped":
        effects.interrupts.append(Interrupt("x.1"))
    with _heard(admin) as heard:
        post.post(effects)
        assert heard(1)[0] is not None
    assert post.between == [effects]
    assert post.by_kombu == 1 + count
    assert len(post.fetched()) == 1 + count


def test_what_redis_refuses_is_given_to_kombu_which_says_so(opened: Callable[..., Post], admin: redis.Redis) -> None:
    post = opened()
    for number in (1, 2):
        post.post(Effects(changes=[change(number)], dispatches=[_due(number)]))
    admin.config_set("maxmemory", "1")
    try:
        post.post(Effects(changes=[change(3)], dispatches=[_due(3)]))
        assert post.dispatcher._broker_down
    finally:
        admin.config_set("maxmemory", "0")
    post.post(Effects(changes=[change(4)], dispatches=[_due(4)]))
    assert not post.dispatcher._broker_down
    assert [message["headers"]["interlock"]["key"] for message in post.fetched()] == ["k1", "k2", "k4"]


def test_after_a_restart_of_redis_messages_arrive(opened: Callable[..., Post], redis_server: RedisServer) -> None:
    post = opened()
    for number in (1, 2):
        post.post(Effects(changes=[change(number)], dispatches=[_due(number)]))
    redis_server.restart()
    post.post(Effects(changes=[change(3)], dispatches=[_due(3)]))
    assert [message["headers"]["interlock"]["key"] for message in post.fetched()][-1] == "k3"


def _reported(post: Post, number: int) -> None:
    """Post as a pool's child does that reports a result."""
    with ending():
        at_end(lambda: post.post(Effects(changes=[change(number)], dispatches=[_due(number)])))


def _keys(post: Post) -> list[str]:
    return [message["headers"]["interlock"]["key"] for message in post.fetched()]


def test_what_a_child_has_sent_to_a_redis_that_died_of_it_is_sent_again_before_the_next(
    opened: Callable[..., Post], redis_server: RedisServer
) -> None:
    post = opened()
    for number in (1, 2):
        _reported(post, number)
    for number in (3, 5):
        assert post.publisher.settle()
        os.kill(redis_server.pid, signal.SIGSTOP)  # what is sent is in the socket, and nobody has read it
        _reported(post, number)
        redis_server.kill()
        redis_server.start()
        _reported(post, number + 1)
        assert _keys(post) == [f"k{number}", f"k{number + 1}"]


@pytest.mark.parametrize("then", ["a result", "a claim"])
def test_what_redis_has_refused_a_child_is_given_to_kombu_before_it_tells_something_else(
    opened: Callable[..., Post], admin: redis.Redis, then: str
) -> None:
    post = opened()
    for number in (1, 2):
        _reported(post, number)
    admin.config_set("maxmemory", "1")
    try:
        _reported(post, 3)
    finally:
        admin.config_set("maxmemory", "0")
    by_kombu = post.by_kombu
    if then == "a result":
        _reported(post, 4)
    else:
        post.post(Effects(changes=[change(4)]))
    assert post.by_kombu == by_kombu + 1
    assert _keys(post) == ["k1", "k2", "k3"] + ["k4"] * (then == "a result")


def test_what_redis_goes_on_to_refuse_a_child_is_told_to_the_database(
    opened: Callable[..., Post], admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = opened()
    for number in (1, 2):
        _reported(post, number)
    told: list[str] = []
    monkeypatch.setattr(post.dispatcher._undelivered, "not_sent", told.extend)
    admin.config_set("maxmemory", "1")
    try:
        for number in (3, 4):
            _reported(post, number)
        post.post(Effects(changes=[change(5)]))
    finally:
        admin.config_set("maxmemory", "0")
    assert told == [_due(number).task_id for number in (3, 4)]


def test_what_a_child_has_sent_and_redis_has_taken_goes_out_once(opened: Callable[..., Post]) -> None:
    post = opened()
    for number in range(1, 51):
        _reported(post, number)
    assert post.by_kombu == 1, "the first of its kind alone"
    assert _keys(post) == [f"k{number}" for number in range(1, 51)]


def test_whoever_is_not_reporting_waits_for_redis_to_have_taken_it(
    opened: Callable[..., Post], hanging: Callable[[], AbstractContextManager[None]]
) -> None:
    post = opened(patient=False)
    for number in (1, 2):
        _reported(post, number)
    assert post.publisher.settle()
    commands = [("LPUSH", "a", "b")]
    with hanging(), ending():  # the body's own code
        assert not post.publisher.publish([change(3)], ahead=commands, wait=False, hurry=is_ending())


def test_what_is_not_answered_in_time_counts_as_not_sent(
    opened: Callable[..., Post], hanging: Callable[[], AbstractContextManager[None]]
) -> None:
    publisher = opened(patient=False).publisher
    assert publisher.publish([change(1)], ahead=[("LPUSH", "a", "b")], wait=False)
    with hanging():
        assert not publisher.publish([change(2)], ahead=[("LPUSH", "a", "b")], wait=False)
