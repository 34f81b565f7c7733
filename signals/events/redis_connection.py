"""Opens the Redis that carries events, with short timeouts and no retries, and checks addresses without quoting them.

Whoever uses a connection decides what a failure means: the publisher pauses, the subscriber reconnects and says so. A
retry inside the client would hide both, and delay the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import redis
import redis.asyncio
from kombu import Connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from interlock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check_broker_url", "open_async_redis", "open_redis"]

C = TypeVar("C", redis.Redis, redis.asyncio.Redis)


def check_broker_url(url: str) -> None:
    """Make sure that kombu can read a broker's URL; nothing is connected.

    Raises:
        ConfigurationError: It cannot; the message does not quote it.
    """
    try:
        Connection(url).get_transport_cls()
    except (ValueError, KeyError, ImportError):
        msg = "broker_url: it cannot be used; use redis:// or amqp://, special characters of a password escaped"
        raise ConfigurationError(msg) from None  # the cause may quote a piece of the password


def open_redis(url: str, *, timeout_s: float) -> redis.Redis:
    """Return a client for `redis://`, `rediss://` or `unix://`; nothing is connected yet.

    Args:
        url: The address, credentials included.
        timeout_s: For connecting, and for each read and write.

    Raises:
        ConfigurationError: The URL cannot be used; the message does not quote it.
    """
    return _checked(redis.Redis.from_url, url, retry=Retry(NoBackoff(), 0), **_options(timeout_s))


def open_async_redis(url: str, *, timeout_s: float) -> redis.asyncio.Redis:
    """Return a client for asyncio; see `open_redis`.

    Raises:
        ConfigurationError: The URL cannot be used; the message does not quote it.
    """
    return _checked(redis.asyncio.Redis.from_url, url, retry=AsyncRetry(NoBackoff(), 0), **_options(timeout_s))


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "protocol": 2,  # no HELLO: one round trip less at each connection, and it is all that pub/sub needs
    }


def _checked(from_url: Callable[..., C], url: str, **options: Any) -> C:
    try:
        client = from_url(url, **options)
        client.connection_pool.make_connection()  # type: ignore[no-untyped-call] # unknown options show only here
    except (ValueError, TypeError, redis.RedisError) as error:
        reason = f": {error}" if isinstance(error, TypeError) else "; use redis://, rediss:// or unix://, parts escaped"
        msg = f"redis_url: it cannot be used{reason}"
        raise ConfigurationError(msg) from None  # the cause may quote a piece of the password
    return client
