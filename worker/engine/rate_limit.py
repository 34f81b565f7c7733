"""Limits how many commands an engine carries out per second: token buckets, one per session and one for all together."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SESSIONS", "RateLimit", "TokenBucket"]

SESSIONS: Final = 10_000
"""How many sessions are remembered. Who invents more, to have an own bucket forgotten and full again, needs longer for it at the
total rate (20 s at 500 a second) than the second in which a bucket fills by itself."""


class TokenBucket:
    """Lets `rate` a second through, and bursts of one second's worth."""

    __slots__ = ("_burst", "_clock", "_rate", "_seen_at", "_tokens")

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, max(rate, 1.0), clock
        self._tokens, self._seen_at = self._burst, clock()

    def take(self) -> bool:
        """Whether one more may pass now."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._seen_at) * self._rate)
        self._seen_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class RateLimit:
    """Two limits: per session, so that one cannot crowd the others out; and in total, so that inventing sessions is of no use."""

    def __init__(self, rate: float, total_rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._total_rate, self._clock = rate, total_rate, clock
        self._total = TokenBucket(total_rate, clock)
        self._sessions: OrderedDict[str, TokenBucket] = OrderedDict()

    def exceeded_by(self, session_id: str) -> str | None:
        """The limit, in words, that one more command of this session would break; None where it may be carried out."""
        bucket = self._sessions.pop(session_id, None) or TokenBucket(self._rate, self._clock)
        self._sessions[session_id] = bucket
        if len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        if not bucket.take():
            return f"over {self._rate:g} commands a second in session {session_id}"
        if not self._total.take():
            return f"over {self._total_rate:g} commands a second in all sessions together"
        return None
