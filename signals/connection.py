"""Opening the Redis that carries events: short timeouts, no retries behind our back, no password in any message.

Whoever uses a connection decides what a failure means: the publisher pauses, the subscriber reconnects and says so. A
retry inside the client would hide both, and delay the caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from interlock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["open_async_redis", "open_redis", "redacted"]

C = TypeVar("C", redis.Redis, redis.asyncio.Redis)

_DEFAULT_PORT: Final = 6379


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


def redacted(url: str) -> str:
    """Return scheme, host, port and database of a URL, without user, password and options."""
    try:
        parts = urlsplit(url)
        place = "" if parts.scheme == "unix" else f"{parts.hostname or 'localhost'}:{parts.port or _DEFAULT_PORT}"
    except ValueError:
        return "redis (unreadable URL)"
    return f"{parts.scheme}://{place}{parts.path}"
