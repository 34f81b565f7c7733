"""The client's end of the control queue: what it does not send."""

from __future__ import annotations

from uuid import uuid4

import pytest

from interlock import Client
from interlock.core.errors import NotJson, PayloadTooLarge
from interlock.core.settings import Settings


def test_what_no_engine_would_take_is_not_sent() -> None:
    settings = Settings.load(None, {}, max_command_bytes=1000)
    with Client(broker_url="memory://", settings=settings) as client:
        with pytest.raises(PayloadTooLarge) as refused:
            client.settle(str(uuid4()), "a", "x" * 1000, "by hand")
        assert refused.value.limit == 1000
        with pytest.raises(NotJson, match="result"):
            client.settle(str(uuid4()), "a", {1, 2}, "by hand")
