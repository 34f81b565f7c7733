"""Follows a run without I/O: every change once and in order, although pub/sub may lose, repeat and reorder.

`RunWatch` says what to do next, read the history (`Read`) or listen to Redis (`Listen`), and is told what was read and heard.
`watching` does that, for threads and for event loops, so that the algorithm exists once.

Subscribe first, then read the history, so that nothing falls between the two. A live change that is next in `seq` goes
out at once; one that is known already is dropped; one that is too early is held while the history fills the gap. The
history is read again at each reconnection, when it has been quiet for `poll_s`, and every second while Redis is away.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from interlock.core.database.errors import may_succeed_later
from interlock.core.errors import InterlockError
from interlock.core.model.transitions import WORKFLOW_TABLE
from interlock.core.queries.history import PAGE
from interlock.signals.events.subscriber import Link

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core.events import StateChange
    from interlock.signals.events.subscriber import Heard

__all__ = [
    "GAP_S",
    "RETRY_S",
    "Fetch",
    "Listen",
    "Order",
    "Read",
    "RunWatch",
    "Schedule",
    "UnknownPosition",
    "WatchTimeout",
    "ends_run",
]

logger = logging.getLogger("interlock.watch")

GAP_S: Final = 0.05
"""How long a gap may last: two processes may publish in another order than they committed; the late one is coming."""

RETRY_S: Final = 1.0
"""Time between readings that failed, or that did not fill a gap."""

_SUBSCRIBING_S: Final = 1.0  # how long the first reading waits for the subscription
_AWAY_POLL_S: Final = 1.0  # instead of poll_s while Redis is away
_HELD: Final = 10_000  # changes of one run held behind a gap; more are left to the history

Fetch: TypeAlias = "Callable[[int], list[StateChange]]"
"""`fetch(after_seq)`: up to `PAGE` changes behind that number, in order; fewer mean there are no more."""


class WatchTimeout(InterlockError, TimeoutError):
    """The time given to a watch is over; the run goes on.

    Attributes:
        timeout_s: The time that was given.
    """

    retryable = True

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(f"the watch did not end within {timeout_s:g} s; the workflow goes on")


class UnknownPosition(InterlockError, ValueError):
    """A watch was to go on behind a change that the history does not have.

    Attributes:
        after_seq: The number that was given.
    """

    def __init__(self, after_seq: int) -> None:
        self.after_seq = after_seq
        super().__init__(f"after_seq: the history of this run has no change {after_seq}; use 0 to see all of it")


@dataclass(frozen=True, slots=True)
class Listen:
    """Ask the subscriber, for that long at most, and tell `heard` what it said."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Read:
    """Call `ask`, which may block, and pass its answer to `tell`, or what it raised to `read_failed`."""

    ask: Callable[[], Any]
    tell: Callable[[Any], None]


class Order:
    """Puts the changes of one run into the order of `seq`, each once."""

    def __init__(self, last: int) -> None:
        self.last = last
        self._held: dict[int, StateChange] = {}

    @property
    def gap(self) -> bool:
        """Whether something is held because what comes before it is missing."""
        return bool(self._held)

    def add(self, change: StateChange) -> list[StateChange]:
        """Return what may go out now that `change` is there: nothing, it, or it and what was held behind it."""
        if change.seq <= self.last or (change.seq != self.last + 1 and len(self._held) >= _HELD):
            return []
        self._held[change.seq] = change
        ready = []
        while (following := self._held.pop(self.last + 1, None)) is not None:
            self.last += 1
            ready.append(following)
        return ready


class Schedule:
    """The times that both kinds of watch keep."""

    def __init__(self, poll_s: float, timeout_s: float | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._poll_s = poll_s
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else clock() + timeout_s
        self._away = False
        self._failing = False
        self._begun = False
        self._read_at = clock() + (_SUBSCRIBING_S if timeout_s is None else min(_SUBSCRIBING_S, timeout_s))

    def _link_changed(self, link: Link) -> None:
        self._away = link is Link.LOST
        self._read_at = self._clock()

    def _read_later(self, *, gap: bool = False) -> None:
        poll_s = min(self._poll_s, _AWAY_POLL_S) if self._away else self._poll_s
        self._read_at = self._clock() + (min(poll_s, RETRY_S) if gap else poll_s)

    def _read_succeeded(self) -> None:
        if self._failing:
            logger.info("the history can be read again")
        self._begun, self._failing = True, False

    def read_failed(self, error: Exception) -> None:
        """Try again later, where that can help and the watch has begun; raise `error` otherwise."""
        if not self._begun or not may_succeed_later(error):
            raise error
        if not self._failing:
            logger.warning("the history cannot be read (%s); trying again", type(error).__name__)
        self._failing = True
        self._read_at = self._clock() + RETRY_S

    def _listen(self, until: float) -> Listen:
        now = self._clock()
        if self._deadline is None:
            return Listen(max(0.0, until - now))
        if now >= self._deadline and self._timeout_s is not None:
            raise WatchTimeout(self._timeout_s)
        return Listen(max(0.0, min(until, self._deadline) - now))


class RunWatch(Schedule):
    """What to do next to follow one run to its end; see the module for the algorithm.

    Args:
        fetch: Reads the history of the run.
        after_seq: The last change that is known already; the watch begins behind it.
        poll_s: How long it may be quiet before the history is read.
        timeout_s: After that time, `next_action` raises `WatchTimeout`; None for no limit.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        after_seq: int = 0,
        poll_s: float = 5.0,
        timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(poll_s, timeout_s, clock)
        self._fetch = fetch
        self._after_seq = after_seq
        # One back: whether the last known change was the end of the run is seen in that change alone.
        self._order = Order(max(after_seq - 1, 0))
        self._ready: list[StateChange] = []
        self._over = False

    def take(self) -> list[StateChange]:
        """Return what is to be given to the consumer now, and forget it."""
        ready, self._ready = self._ready, []
        return ready

    def next_action(self) -> Listen | Read | None:
        """Return what to do next; None after the end of the run.

        Raises:
            WatchTimeout: The time is over.
        """
        if self._over:
            return None
        if self._clock() >= self._read_at:
            return Read(partial(self._fetch, self._order.last), self._fetched)
        return self._listen(self._read_at)

    def heard(self, news: Heard) -> None:
        """Take what the subscriber said."""
        if news is None:
            return
        if isinstance(news, Link):
            self._link_changed(news)
        elif self._deliver(news):
            self._read_later()
        elif self._order.gap:
            self._read_at = min(self._read_at, self._clock() + GAP_S)

    def _fetched(self, changes: list[StateChange]) -> None:
        if not self._begun and not changes and self._after_seq > 0:
            raise UnknownPosition(self._after_seq)
        self._read_succeeded()
        before = self._order.last
        for change in changes:
            self._deliver(change)
        if len(changes) >= PAGE and self._order.last > before:
            self._read_at = self._clock()
        else:
            self._read_later(gap=self._order.gap)

    def _deliver(self, change: StateChange) -> bool:
        ready = self._order.add(change)
        self._over = self._over or any(ends_run(each) for each in ready)
        self._ready += [each for each in ready if each.seq > self._after_seq]
        return bool(ready) and not self._order.gap


def ends_run(change: StateChange) -> bool:
    """Whether `change` is the end of its run, and so its last."""
    table = WORKFLOW_TABLE
    return change.entity_type == table.entity_type and table.is_terminal(table.parse(change.to_state))
