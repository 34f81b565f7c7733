"""Follows all runs of a session without I/O, as `catch_up` follows one.

A `seq` is kept for each run. Runs that go on when the watch begins are followed from there (or from the `seq` that the
caller gives), later ones from their first change. Which runs have moved is read from the database at each reconnection
and every `poll_s`. A run that was created and ended while nothing was heard is found by its creation time, if it was
committed within a minute of it; that is the one thing that is less than certain.
"""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from interlock.core.queries.history import PAGE
from interlock.signals.events.subscriber import Link

from .catch_up import GAP_S, RETRY_S, Listen, Order, Read, Schedule, ends_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from interlock.core.events import StateChange
    from interlock.core.queries.history import RunHead, SessionHeads
    from interlock.signals.events.subscriber import Heard

__all__ = ["SessionReader", "SessionWatch"]

_COMMIT_DELAY: Final = timedelta(seconds=60)
_REMEMBERED_S: Final = 300.0  # how long a late repetition of an ended run's changes is recognised


class SessionReader(Protocol):
    """What a session's watch reads; `queries.history.HistoryReader` is one. No replica: it must see what is committed."""

    def changes(self, workflow_id: str, after_seq: int = 0) -> list[StateChange]:
        """Up to `PAGE` changes of a run."""

    def head(self, workflow_id: str) -> RunHead | None:
        """How far a run is."""

    def heads(self, *, created_after: datetime | None = None, ended_after: datetime | None = None) -> SessionHeads:
        """How far the session's runs are."""


class SessionWatch(Schedule):
    """What to do next to follow all runs of a session; see the module for the algorithm.

    Args:
        reader: Reads the session.
        after: For runs whose changes are known up to a number, that number; the others are followed from now.
        poll_s: How often the database is asked which runs have moved.
        timeout_s: After that time, `next_action` raises `WatchTimeout`; None for no limit.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        reader: SessionReader,
        *,
        after: Mapping[str, int] | None = None,
        poll_s: float = 5.0,
        timeout_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(poll_s, timeout_s, clock)
        self._reader = reader
        self._orders = {workflow_id: Order(seq) for workflow_id, seq in (after or {}).items()}
        self._ready: list[StateChange] = []
        self._began_at: datetime | None = None
        self._asked_at: datetime | None = None
        self._asked_s = clock()
        self._doubtful: dict[str, None] = {}
        self._due: dict[str, float] = {}
        self._settled: set[str] = set()
        self._ended: dict[str, float] = {}

    def take(self) -> list[StateChange]:
        """Return what is to be given to the consumer now, and forget it."""
        ready, self._ready = self._ready, []
        return ready

    def next_action(self) -> Listen | Read | None:
        """Return what to do next; a session has no end.

        Raises:
            WatchTimeout: The time is over.
        """
        now = self._clock()
        if now >= self._read_at:
            return Read(self._ask_heads, self._heads_read)
        if self._failing:
            return self._listen(self._read_at)
        if self._doubtful:
            workflow_id = next(iter(self._doubtful))
            return Read(partial(self._reader.head, workflow_id), partial(self._head_read, workflow_id))
        if self._due:
            workflow_id, due_at = min(self._due.items(), key=lambda item: item[1])
            if now >= due_at:
                last = self._orders[workflow_id].last
                return Read(partial(self._reader.changes, workflow_id, last), partial(self._fetched, workflow_id))
            return self._listen(min(due_at, self._read_at))
        return self._listen(self._read_at)

    def heard(self, news: Heard) -> None:
        """Take what the subscriber said."""
        if news is None:
            return
        if isinstance(news, Link):
            self._link_changed(news)
            return
        if self._began_at is None:
            return  # what the first reading finds includes it
        workflow_id = news.workflow_id
        if workflow_id in self._ended or workflow_id in self._doubtful:
            return  # repeated, or about to be read
        if workflow_id not in self._orders and self._may_be_old(news):
            self._doubtful[workflow_id] = None
            return
        order = self._orders.setdefault(workflow_id, Order(0))
        self._deliver(workflow_id, order, news)
        if order.gap:
            self._due.setdefault(workflow_id, self._clock() + GAP_S)

    def _may_be_old(self, change: StateChange) -> bool:
        # A run that went on at the beginning is known. An unknown one is new, unless this is the late message of a run
        # that was over by then; only a change that is older than the watch can be that.
        return change.created_at is None or self._began_at is None or change.created_at <= self._began_at

    def _ask_heads(self) -> SessionHeads:
        if self._asked_at is None:
            return self._reader.heads()
        return self._reader.heads(created_after=self._asked_at - _COMMIT_DELAY, ended_after=self._began_at)

    def _heads_read(self, heads: SessionHeads) -> None:
        self._read_succeeded()
        first = self._began_at is None
        self._began_at = self._began_at or heads.at
        self._asked_at = heads.at
        now = self._clock()
        for workflow_id, seq in heads.seqs.items():
            if workflow_id in self._ended:
                continue
            order = self._orders.setdefault(workflow_id, Order(seq if first else 0))
            if seq > order.last:
                self._due[workflow_id] = now
        for workflow_id in self._orders.keys() - heads.seqs.keys():
            self._due[workflow_id] = now  # it has ended meanwhile: what is left of it is read, and then it is forgotten
            self._settled.add(workflow_id)
        self._forget_ended(self._asked_s)
        self._asked_s = now
        self._read_later()

    def _forget_ended(self, asked_s: float) -> None:
        # Measured from the last reading that worked, since the next one reaches back to it.
        for workflow_id in [key for key, ended_s in self._ended.items() if ended_s < asked_s - _REMEMBERED_S]:
            del self._ended[workflow_id]

    def _head_read(self, workflow_id: str, head: RunHead | None) -> None:
        self._read_succeeded()
        del self._doubtful[workflow_id]
        over = head is None or (
            head.completed_at is not None and self._began_at is not None and head.completed_at <= self._began_at
        )
        if over:
            self._ended[workflow_id] = self._clock()
        else:
            self._orders.setdefault(workflow_id, Order(0))
            self._due[workflow_id] = self._clock()

    def _fetched(self, workflow_id: str, changes: list[StateChange]) -> None:
        self._read_succeeded()
        del self._due[workflow_id]
        order = self._orders[workflow_id]
        before = order.last
        for change in changes:
            self._deliver(workflow_id, order, change)
        if workflow_id not in self._orders:
            return
        if len(changes) >= PAGE and order.last > before:
            self._due[workflow_id] = self._clock()
        elif workflow_id in self._settled:
            self._end(workflow_id)  # over, with nothing left: its end was known before
        elif order.gap:
            self._due[workflow_id] = self._clock() + RETRY_S

    def _deliver(self, workflow_id: str, order: Order, change: StateChange) -> None:
        ready = order.add(change)
        self._ready += ready
        if any(ends_run(each) for each in ready):
            self._end(workflow_id)

    def _end(self, workflow_id: str) -> None:
        self._ended[workflow_id] = self._clock()
        self._orders.pop(workflow_id, None)
        self._due.pop(workflow_id, None)
        self._settled.discard(workflow_id)
