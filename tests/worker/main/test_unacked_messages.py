"""Steps' messages leave no copy on Redis while they are held, are given back all the same, and change nothing for others'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis
from kombu import Connection, Consumer, Queue

from interlock.signals.step_header import HEADER
from interlock.worker.main.unacked_messages import skip_broker_copies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUEUE = "held"
COPIES = "unacked"


class Held:
    """A consumer as MAIN has one, which takes messages and decides later."""

    def __init__(self, url: str) -> None:
        self.connection = Connection(url)
        self.messages: list[Any] = []
        self.skips_copies = skip_broker_copies(self.connection)
        self._consumer = Consumer(self.connection, [Queue(QUEUE)], on_message=self.messages.append)
        self._consumer.consume()

    def take(self, count: int) -> None:
        """Take messages until there are so many."""
        while len(self.messages) < count:
            self.connection.drain_events(timeout=10)

    def prefetch(self, count: int) -> None:
        """Take no more than so many that are not acknowledged."""
        self._consumer.qos(prefetch_count=count)

    def bodies(self) -> list[str]:
        return [message.payload for message in self.messages]

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def held(redis_url: str) -> Iterator[Held]:
    """A consumer of the queue; the copies of its messages are in the same database."""
    held = Held(redis_url)
    yield held
    held.close()


@pytest.fixture
def send(redis_url: str) -> Iterator[Callable[..., None]]:
    """Put messages into the queue; those that begin with `step` are steps'."""
    with Connection(redis_url) as connection:
        producer = connection.Producer()

        def send_all(*bodies: str) -> None:
            for body in bodies:
                headers = {HEADER: {"run_id": "r"}} if body.startswith("step") else {}
                producer.publish(body, routing_key=QUEUE, headers=headers, declare=[Queue(QUEUE)])

        yield send_all


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """To look into the broker."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_only_what_is_not_ours_is_copied(held: Held, send: Callable[..., None], client: redis.Redis) -> None:
    send("step 1", "other", "step 2")
    held.take(3)
    assert held.skips_copies
    assert client.hlen(COPIES) == client.zcard("unacked_index") == 1
    for message in held.messages:
        message.ack()
    assert client.keys("unacked*") == []


def test_what_is_held_counts_for_the_prefetch_limit(held: Held, send: Callable[..., None]) -> None:
    held.prefetch(2)
    send("step 1", "step 2", "step 3")
    held.take(2)
    with pytest.raises(TimeoutError):
        held.connection.drain_events(timeout=0.2)
    held.messages[0].ack()
    held.take(3)
    assert held.bodies() == ["step 1", "step 2", "step 3"]


def test_what_is_rejected_comes_again_where_that_is_asked_for(
    held: Held, send: Callable[..., None], client: redis.Redis
) -> None:
    send("step 1", "step 2")
    held.take(2)
    held.messages[0].reject()
    held.messages[1].requeue()
    held.take(3)
    assert held.bodies()[2] == "step 2"
    assert held.messages[2].headers["redelivered"]
    held.messages[2].ack()
    assert client.llen(QUEUE) == 0


def test_what_is_held_at_the_end_is_given_back(held: Held, send: Callable[..., None], redis_url: str) -> None:
    send("step 1", "other", "step 2", "step 3")
    held.take(4)
    held.messages[0].ack()
    held.close()
    successor = Held(redis_url)
    successor.take(3)
    assert sorted(successor.bodies()) == ["other", "step 2", "step 3"]
    successor.close()


def test_a_broker_with_an_account_of_its_own_keeps_it() -> None:
    with Connection("memory://") as connection:
        assert not skip_broker_copies(connection)


def test_a_second_call_for_the_same_connection_changes_nothing(held: Held) -> None:
    assert not skip_broker_copies(held.connection)
