"""What did not work is left alone for a while, each time twice as long, so that it cannot take the place of everything else.

It is one process's memory, bounded and lost with it: whatever is put off here would only have been tried once more for nothing.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PutOff"]

_REMEMBERED: Final = 5_000  # they become parameters of a statement, of which SQLite takes 32,766


@dataclass(slots=True)
class _Pause:
    length_s: float
    until: float


class PutOff:
    """Keys that are to be left alone now.

    Args:
        first_s: The first pause of a key.
        longest_s: The longest one; a key that was quiet for that long behind its pause begins anew.
        clock: Monotonic seconds.
    """

    def __init__(self, first_s: float, longest_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first_s = min(first_s, longest_s)
        self._longest_s = longest_s
        self._clock = clock
        self._pauses: OrderedDict[str, _Pause] = OrderedDict()

    def add(self, key: str) -> None:
        """Put a key off, for twice as long as the last time."""
        now = self._clock()
        last = self._pauses.pop(key, None)
        fresh = last is None or now > last.until + self._longest_s
        length_s = self._first_s if fresh or last is None else min(last.length_s * 2, self._longest_s)
        self._pauses[key] = _Pause(length_s, now + length_s)
        if len(self._pauses) > _REMEMBERED:
            self._pauses.popitem(last=False)

    def forget(self, key: str) -> None:
        """It works again: the next time it fails it begins with the first pause."""
        self._pauses.pop(key, None)

    def now(self) -> list[str]:
        """The keys that are to be left alone at this moment."""
        now = self._clock()
        return [key for key, pause in self._pauses.items() if now < pause.until]
