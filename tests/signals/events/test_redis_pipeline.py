"""Commands in one write: whose replies are waited for, and what becomes of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis

from interlock.signals.events.redis_connection import open_redis
from interlock.signals.events.redis_pipeline import RedisPipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.signals.events.redis_pipeline import Command

WRONG: Command = ("LPUSH", "a-text", "x")


@pytest.fixture
def pipeline(redis_url: str, admin: redis.Redis) -> Iterator[RedisPipeline]:
    """One whose Redis has a list and a text."""
    admin.delete("a-list")
    admin.set("a-text", "x")
    pipeline = RedisPipeline(open_redis(redis_url, timeout_s=1))
    yield pipeline
    pipeline.close()


def _push(value: int) -> Command:
    return "LPUSH", "a-list", str(value)


def test_nothing_that_was_not_waited_for_is_left_unread(pipeline: RedisPipeline, admin: redis.Redis) -> None:
    for value in range(300):
        pipeline.send([_push(value), _push(value)], wait_for=0)
    pipeline.send([_push(300)], wait_for=1)
    assert admin.llen("a-list") == 601
    assert pipeline._pending_replies == 0


def test_what_redis_refuses_of_what_is_waited_for_is_raised(pipeline: RedisPipeline, admin: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        pipeline.send([WRONG, _push(1)], wait_for=1)
    pipeline.send([_push(2)], wait_for=1)
    assert admin.llen("a-list") == 2


def test_what_redis_has_refused_of_the_rest_is_raised_at_the_next_call(
    pipeline: RedisPipeline, admin: redis.Redis
) -> None:
    pipeline.send([_push(1), WRONG], wait_for=1)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        pipeline.send([_push(2)], wait_for=1)
    pipeline.send([_push(3)], wait_for=1)
    assert admin.lrange("a-list", 0, -1) == [b"3", b"1"], "the call that was told has sent nothing"


def test_a_connection_that_ended_between_two_calls_is_replaced(pipeline: RedisPipeline, admin: redis.Redis) -> None:
    pipeline.send([_push(1)], wait_for=0)
    admin.client_kill_filter(_type="normal", skipme=True)
    pipeline.send([_push(2)], wait_for=1)
    assert admin.llen("a-list") == 2


def test_nothing_to_send_opens_nothing(redis_url: str) -> None:
    pipeline = RedisPipeline(open_redis(redis_url, timeout_s=1))
    pipeline.send([], wait_for=0)
    assert pipeline._connection is None
