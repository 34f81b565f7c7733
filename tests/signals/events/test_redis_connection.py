"""Addresses of Redis and of brokers: what cannot be used is refused at once, and never quoted."""

from __future__ import annotations

import pytest

from interlock.core.errors import ConfigurationError
from interlock.signals.events.redis_connection import check_broker_url, open_async_redis, open_redis

QUOTED = "se/cret"


@pytest.mark.parametrize("open_client", [open_redis, open_async_redis])
@pytest.mark.parametrize(
    "url", ["http://x", f"redis://:{QUOTED}@x:notaport/0", "redis://127.0.0.1/0?no_such_option=1", ""]
)
def test_an_address_of_redis_that_cannot_be_used_is_refused(open_client: object, url: str) -> None:
    with pytest.raises(ConfigurationError, match="redis_url") as refused:
        open_client(url, timeout_s=1)  # type: ignore[operator] # one of two functions
    assert QUOTED not in str(refused.value)


@pytest.mark.parametrize("url", ["nonsense://x", f"redis://:{QUOTED}@x:notaport"])
def test_an_address_of_a_broker_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="broker_url") as refused:
        check_broker_url(url)
    assert QUOTED not in str(refused.value)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest@127.0.0.1//"])
def test_an_address_of_a_broker_that_is_away_is_fine(url: str) -> None:
    check_broker_url(url)
