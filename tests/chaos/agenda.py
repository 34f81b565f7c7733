"""A thread that does things one after the other, each when its time has come."""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Agenda"]

_IDLE_S = 0.2


class Agenda(threading.Thread):
    """Carries out what is put on it, in order of time.

    Attributes:
        stopping: Set when it is to do no more.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._inbox: queue.SimpleQueue[tuple[float, Callable[[], None]]] = queue.SimpleQueue()
        self._number = itertools.count()
        self._pending = 0
        self.stopping = threading.Event()

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do `act` at that time, by `time.monotonic`; called by any thread."""
        self._inbox.put((when, act))

    def stop(self) -> None:
        """Do no more."""
        self.stopping.set()

    @property
    def busy(self) -> bool:
        """Whether something is still to be done."""
        return self._pending > 0 or not self._inbox.empty()

    def run(self) -> None:
        """Work until told to stop."""
        agenda: list[tuple[float, int, Callable[[], None]]] = []
        while not self.stopping.is_set():
            self._pending = len(agenda)
            wait_s = min(agenda[0][0] - time.monotonic(), _IDLE_S) if agenda else _IDLE_S
            try:
                at, act = self._inbox.get(timeout=max(wait_s, 0.001))
            except queue.Empty:
                pass
            else:
                heapq.heappush(agenda, (at, next(self._number), act))
            while agenda and agenda[0][0] <= time.monotonic():
                agenda[0][2]()
                heapq.heappop(agenda)
