"""Fixtures of the events' tests: a clock to turn, and a Redis that hangs."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.servers import RedisServer


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hanging(redis_server: RedisServer) -> Callable[[], AbstractContextManager[None]]:
    """A context in which Redis accepts connections and answers nothing."""

    @contextmanager
    def stopped() -> Iterator[None]:
        pid = redis_server.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    return stopped


@pytest.fixture
def admin(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the private server, for looking at it."""
    with redis.Redis.from_url(redis_server.url()) as client:
        yield client


@pytest.fixture
def small_buffers(admin: redis.Redis) -> Iterator[None]:
    """Redis throws a subscriber off that is 100 kB behind."""
    name = "client-output-buffer-limit"
    before = admin.config_get(name)[name]
    admin.config_set(name, "pubsub 100000 0 0")
    yield
    admin.config_set(name, before)
