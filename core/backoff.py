"""Exponential back-off: pauses that double up to a limit."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

__all__ = ["Backoff", "BackoffTimer"]

_MOST_DOUBLINGS: Final = 64  # a float overflows at 1,024; no pause gets that far


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses by the number of failures in a row.

    Attributes:
        first_s: Seconds after the first failure; doubled with each further one.
        longest_s: Upper limit.
        jitter: Share of a pause that is random, from 0 (none) to 1 (anything up to the pause): those that failed together
            should not come back together.
    """

    first_s: float
    longest_s: float
    jitter: float = 0.0

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, 1 being the first."""
        pause_s = min(self.first_s * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self.longest_s)
        return pause_s * random.uniform(1 - self.jitter, 1) if self.jitter else pause_s  # noqa: S311 - no secret

    def wait(self, state: RetryCallState) -> float:
        """The pause as tenacity asks for it, as its `wait`."""
        return self.pause_s(state.attempt_number)

    def pauses(self) -> list[float]:
        """The different pauses in order, without jitter; the last one is `longest_s`."""
        pauses = []
        pause_s = self.first_s
        while pause_s < self.longest_s:
            pauses.append(pause_s)
            pause_s *= 2
        return [*pauses, self.longest_s]


class BackoffTimer:
    """When one thing that fails may be tried again.

    Args:
        backoff: The pauses.
        clock: Monotonic seconds.
    """

    __slots__ = ("_backoff", "_clock", "_next_try", "failures")

    def __init__(self, backoff: Backoff, clock: Callable[[], float] = time.monotonic) -> None:
        self._backoff = backoff
        self._clock = clock
        self._next_try = float("-inf")
        self.failures = 0

    @property
    def left_s(self) -> float:
        """Seconds until the next try; not positive where it may come now, and then the negative time since when."""
        return self._next_try - self._clock()

    def failed(self) -> None:
        """Note a failure: the next try comes after its pause."""
        self.failures += 1
        self.hold()

    def hold(self) -> None:
        """Begin the present pause anew, because somebody is trying just now."""
        self._next_try = self._clock() + self._backoff.pause_s(max(self.failures, 1))

    def succeeded(self) -> None:
        """Begin anew: the next failure is the first one."""
        self.failures = 0
        self._next_try = float("-inf")
