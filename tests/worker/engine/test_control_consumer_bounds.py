"""What comes over the control queue is bounded: in size, in depth, in number; and so is what stays of it."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from celery import Celery
from redis import Redis

from interlock.core.settings import Settings
from interlock.signals.control.queues import dead_letter_queue
from interlock.worker.engine.control_consumer import ControlConsumer
from interlock.worker.engine.rate_limit import TokenBucket
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S
from tests.worker.raw_link import raw_link

if TYPE_CHECKING:
    from tests.worker.deployment import Deployment

DEAD = dead_letter_queue("interlock").name


@pytest.fixture(scope="module", autouse=True)
def _worker(deployment: Deployment) -> None:
    deployment.worker("bounds", INTERLOCK_MAX_COMMAND_BYTES="100000")


def test_a_message_over_the_limit_is_set_aside_unread_and_shortened(deployment: Deployment) -> None:
    with raw_link(deployment) as raw, Redis.from_url(deployment.broker.url(0)) as redis:
        raw.send(json.dumps({"id": uuid4().hex, "command": "list", "reply_to": raw.reply_to, "reason": "x" * 100_000}))
        wait_until(lambda: redis.llen(DEAD) == 1, DEADLINE_S, "the message is set aside")
        (entry,) = redis.lrange(DEAD, 0, -1)
        assert len(entry) < 20_000
        assert redis.llen(raw.reply_to) == 0, "what was not read cannot be answered"
        assert raw.ask("list")["ok"]


def test_dead_letters_do_not_grow_without_end(deployment: Deployment) -> None:
    with raw_link(deployment) as raw, Redis.from_url(deployment.broker.url(0)) as redis:
        redis.rpush(DEAD, *["old"] * 1500)
        raw.send(b"{")
        # A queue is put in order behind the message, in steps.
        wait_until(
            lambda: redis.llen(DEAD) <= 1000 and 0 < redis.ttl(DEAD) <= 86_400, DEADLINE_S, "the oldest are dropped"
        )
        assert redis.lindex(DEAD, 0) != b"old", "the newest is kept"


class _Message:
    """A message as the consumer sees it."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.acknowledged = False

    def ack(self) -> None:
        self.acknowledged = True


def test_of_a_flood_only_some_is_answered_logged_and_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = Celery("flood", broker="memory://", set_as_current=False)
    handler: Any = None  # never reached
    consumer = ControlConsumer(app, Settings(), handler, threading.Event())
    now = [0.0]
    consumer._rejected_rate = TokenBucket(50, lambda: now[0])
    sent: list[str] = []
    monkeypatch.setattr(consumer, "_publish", lambda key, *_, **__: sent.append(key))
    flood: list[Any] = [_Message(b'{"reply_to": "interlock.reply.x"}') for _ in range(1000)]
    for message in flood:
        consumer._on_message(message)
    assert all(message.acknowledged for message in flood)
    assert sent.count("interlock.reply.x") == sent.count(DEAD) == 50
    assert caplog.text.count("set a control message aside") == 50
    now[0] = 1.0
    consumer._on_message(flood[0])
    assert "950 more control messages" in caplog.text
    app.close()
