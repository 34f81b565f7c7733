"""One write for a commit's messages and events says what the two clients would have said, and gives way to them where it must."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from kombu import Producer

from interlock.core.database.database import open_database
from interlock.core.events import Dispatch, Effects, Interrupt
from interlock.core.settings import Settings
from interlock.signals.dispatch.combined_send import CombinedSend
from interlock.signals.dispatch.dispatcher import Dispatcher
from interlock.signals.events.publisher import FEW, EventPublisher
from tests.compiled_statements import SHARED_COMPILATION
from tests.signals.scripts import RUN_ID, change, patient_publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.servers import RedisServer


def _due(number: int, spec: dict[str, Any] | None = None) -> Dispatch:
    step_id = f"6a1c4a5e-0000-4000-8000-{number:012}"
    return Dispatch(RUN_ID, "default", step_id, f"k{number}", "shop.pay", f"{step_id}.1", 1, 0, spec or {})


class Sending:
    """A combined send with what it stands before; counts what kombu has sent."""

    def __init__(self, broker_url: str, events_url: str, database_url: str, *, patient: bool, **options: Any) -> None:
        self.app = Celery("producer", broker=broker_url, set_as_current=False)
        self.app.conf.update(options)
        self.database = open_database(database_url, **SHARED_COMPILATION)
        self.publisher = (patient_publisher if patient else EventPublisher)(events_url)
        self.between: list[Effects] = []
        self.dispatcher = Dispatcher(self.app, self.database, Settings())
        self.send = CombinedSend(self.dispatcher, self.publisher, self.between.append)
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
def opened(
    migrated_sqlite_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Sending]]:
    """Open sendings whose broker is the Redis of the test; another address for the events where one is given."""
    sendings: list[Sending] = []

    def open_sending(*, events_url: str = redis_url, patient: bool = True, **options: Any) -> Sending:
        sending = Sending(redis_url, events_url, migrated_sqlite_url, patient=patient, **options)
        sendings.append(sending)
        publish = Producer.publish

        def counted(self: Producer, *args: Any, **kwargs: Any) -> Any:
            if getattr(self._batch_local, "current", None) is None or not hasattr(
                self._batch_local.current, "commands"
            ):
                sending.by_kombu += 1
            return publish(self, *args, **kwargs)

        monkeypatch.setattr(Producer, "publish", counted)
        return sending

    yield open_sending
    for sending in sendings:
        sending.close()


@contextmanager
def _heard(client: redis.Redis) -> Iterator[Callable[[int], list[Any]]]:
    with client.pubsub() as pubsub:
        pubsub.psubscribe("*")
        pubsub.get_message(timeout=10)
        yield lambda count: [pubsub.get_message(timeout=10) for _ in range(count)]


@pytest.mark.parametrize("spec", [{}, {"priority": 7}, {"queue": "else", "timeout_s": 10}])
def test_what_is_written_is_what_kombu_would_have_written(opened: Callable[..., Sending], spec: dict[str, Any]) -> None:
    sending = opened()
    spec = {**spec, "args": [{"b": "ü"}, None], "kwargs": {"c": 1.5}}
    for number in (1, 2, 3):
        sending.send(Effects(changes=[change(number)], dispatches=[_due(number, spec)]))
    assert sending.by_kombu == 1  # the first of its kind
    sending.dispatcher(Effects(dispatches=[_due(2, spec)]))
    _, written, _, by_kombu = sending.fetched(spec.get("queue", "celery"))
    assert written == by_kombu
    assert written["payload"][:2] == [spec["args"], spec["kwargs"]]


def test_messages_and_events_go_out_in_one_write(
    opened: Callable[..., Sending], admin: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = opened()
    sending.send(Effects(changes=[change(1)], dispatches=[_due(1)]))
    sending.send(Effects(changes=[change(2)], dispatches=[_due(2)]))
    writes: list[Any] = []
    send = redis.Connection.send_packed_command

    def counting(self: redis.Connection, command: Any, **options: Any) -> None:
        writes.append(command)
        send(self, command, **options)

    with _heard(admin) as heard, monkeypatch.context() as patch:
        patch.setattr(redis.Connection, "send_packed_command", counting)
        changes = [change(seq) for seq in (3, 4)]
        sending.send(Effects(changes=changes, dispatches=[_due(number) for number in (3, 4, 5)]))
        assert len(writes) == 1
        assert [message["type"] for message in heard(2)] == ["pmessage"] * 2
    assert len(sending.fetched()) == 5


@pytest.mark.parametrize(
    "why", ["another Redis", "a key prefix", "too many", "a body is to be stopped", "nothing is due"]
)
def test_where_it_cannot_be_one_write_each_does_its_own(
    opened: Callable[..., Sending], redis_url: str, admin: redis.Redis, why: str
) -> None:
    options: dict[str, Any] = {}
    if why == "another Redis":
        options["events_url"] = redis_url.replace("127.0.0.1", "localhost")
    if why == "a key prefix":
        options["broker_transport_options"] = {"global_keyprefix": "ours:"}
    sending = opened(**options)
    sending.dispatcher(Effects(dispatches=[_due(0)]))
    count = {"too many": FEW + 1, "nothing is due": 0}.get(why, 1)
    effects = Effects(changes=[change(1)], dispatches=[_due(number) for number in range(count)])
    if why == "a body is to be stopped":
        effects.interrupts.append(Interrupt("x.1", "x.1"))
    with _heard(admin) as heard:
        sending.send(effects)
        assert heard(1)[0] is not None
    assert sending.between == [effects]
    assert sending.by_kombu == 1 + count
    assert len(sending.fetched()) == 1 + count


def test_what_redis_refuses_is_given_to_kombu_which_says_so(opened: Callable[..., Sending], admin: redis.Redis) -> None:
    sending = opened()
    for number in (1, 2):
        sending.send(Effects(changes=[change(number)], dispatches=[_due(number)]))
    admin.config_set("maxmemory", "1")
    try:
        sending.send(Effects(changes=[change(3)], dispatches=[_due(3)]))
        assert sending.dispatcher._broker_down
    finally:
        admin.config_set("maxmemory", "0")
    sending.send(Effects(changes=[change(4)], dispatches=[_due(4)]))
    assert not sending.dispatcher._broker_down
    assert [message["headers"]["interlock"]["key"] for message in sending.fetched()] == ["k1", "k2", "k4"]


def test_after_a_restart_of_redis_messages_arrive(opened: Callable[..., Sending], redis_server: RedisServer) -> None:
    sending = opened()
    for number in (1, 2):
        sending.send(Effects(changes=[change(number)], dispatches=[_due(number)]))
    redis_server.restart()
    sending.send(Effects(changes=[change(3)], dispatches=[_due(3)]))
    assert [message["headers"]["interlock"]["key"] for message in sending.fetched()][-1] == "k3"


def test_what_is_not_answered_in_time_counts_as_not_sent(
    opened: Callable[..., Sending], hanging: Callable[[], AbstractContextManager[None]]
) -> None:
    publisher = opened(patient=False).publisher
    assert publisher.publish([change(1)], first=[("LPUSH", "a", "b")], wait=False)
    with hanging():
        assert not publisher.publish([change(2)], first=[("LPUSH", "a", "b")], wait=False)
