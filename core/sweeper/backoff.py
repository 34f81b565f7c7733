"""Exponential back-off per key, in the memory of one process.

What fails again and again must not take the place of everything else. Lost with the process, it costs one more try.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from interlock.core.backoff import BackoffTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core.backoff import Backoff

__all__ = ["KeyedBackoff"]

_REMEMBERED: Final = 5_000  # they become parameters of a statement, of which SQLite takes 32,766


class KeyedBackoff:
    """Keys that are to be left alone now.

    Args:
        backoff: The pauses of a key; one that was quiet for `longest_s` after its pause begins anew.
        clock: Monotonic seconds.
    """

    def __init__(self, backoff: Backoff, clock: Callable[[], float] = time.monotonic) -> None:
        self._backoff = backoff
        self._clock = clock
        self._timers: OrderedDict[str, BackoffTimer] = OrderedDict()

    def add(self, key: str) -> None:
        """Note a failure of a key."""
        timer = self._timers.pop(key, None)
        if timer is None or -timer.left_s > self._backoff.longest_s:
            timer = BackoffTimer(self._backoff, self._clock)
        timer.failed()
        self._timers[key] = timer
        if len(self._timers) > _REMEMBERED:
            self._timers.popitem(last=False)

    def forget(self, key: str) -> None:
        """The key works again: its next failure is the first one."""
        self._timers.pop(key, None)

    def now(self) -> list[str]:
        """The keys that are to be left alone at this moment."""
        return [key for key, timer in self._timers.items() if timer.left_s > 0]
