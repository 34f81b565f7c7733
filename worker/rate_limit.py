"""How many commands a session may send in a second: a token bucket each, for the sessions that were heard lately."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RateLimit"]

_SESSIONS = 10_000


class RateLimit:
    """Lets `rate` commands a second through per session, and bursts of one second's worth."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admits(self, session_id: str) -> bool:
        """Whether the session may have one more command carried out now."""
        now = self._clock()
        burst = max(self._rate, 1.0)
        tokens, seen_at = self._buckets.pop(session_id, (burst, now))
        tokens = min(burst, tokens + (now - seen_at) * self._rate)
        admitted = tokens >= 1
        self._buckets[session_id] = (tokens - admitted, now)
        if len(self._buckets) > _SESSIONS:
            self._buckets.popitem(last=False)
        return admitted
