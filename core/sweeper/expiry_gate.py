"""Decides whether a sweeper may take a lease that is over for a lost worker.

After an outage of the database every lease of the fleet is over, and the first sweep may come before the first heartbeat. So a
sweeper that could not sweep for longer than a heartbeat, or that has just started, waits until healthy workers have renewed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core.settings import Settings

__all__ = ["ExpiryGate"]

# 15 s with the default heartbeat of 10 s. A share of it, since leases and heartbeats are set together.
_HEARTBEATS: Final = 1.5


class ExpiryGate:
    """Closed at first, and again after each time without an answer of the database; open after one and a half heartbeats."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        """Set up a closed gate.

        Args:
            settings: The heartbeat, and how often sweeps come.
            clock: Monotonic seconds.
        """
        self._clock = clock
        # Sweeps may be rarer than heartbeats: then it is a sweep left out that counts.
        self._longest_gap_s = max(settings.heartbeat_s, 2 * settings.sweep_s)
        self._wait_s = _HEARTBEATS * settings.heartbeat_s
        self._answered_at: float | None = None
        self._since = 0.0

    def database_answered(self) -> None:
        """Note that the database works now."""
        now = self._clock()
        if self._answered_at is None or now - self._answered_at > self._longest_gap_s:
            self._since = now
        self._answered_at = now

    @property
    def is_open(self) -> bool:
        """Whether the database has worked for so long that every healthy worker has renewed its leases."""
        return self._answered_at is not None and self._clock() - self._since >= self._wait_s
