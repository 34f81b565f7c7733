"""What is to be told soon, though not at once: by a thread, unless its process has something to tell before that.

Between two steps of a ride nothing but the commit has to be waited for. A write to Redis there costs the next body a tenth of a
millisecond or more; a few milliseconds later, while the process waits for its database, it costs nobody anything, and is
one for several steps.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from interlock.core.events import StateChange

__all__ = ["Later"]

_WITHIN_S: Final = 0.002


class Later:
    """Changes that wait to be told, for one process.

    Args:
        tell: Takes them and tells them; called by the thread. It must not raise.
    """

    def __init__(self, tell: Callable[[], object]) -> None:
        self._tell = tell
        self._changes: list[StateChange] = []
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def add(self, changes: Iterable[StateChange]) -> None:
        """Have changes told within milliseconds, behind those that wait already.

        Raises:
            RuntimeError: The system gives this process no thread; the changes wait for whoever tells something.
        """
        with self._lock:
            self._changes += changes
            if self._thread is None:
                self._thread = _deaf_thread(self._run)
        self._due.set()

    @property
    def waits(self) -> bool:
        """Whether anything waits."""
        return bool(self._changes)

    def take(self) -> list[StateChange]:
        """All that wait, for whoever tells them now."""
        with self._lock:
            changes, self._changes = self._changes, []
            return changes

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._due.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._due.wait()
            self._stopped.wait(_WITHIN_S)
            self._due.clear()
            self._tell()


def _deaf_thread(run: Callable[[], None]) -> threading.Thread:
    """A thread that no signal finds: whoever stops a body means the main one, in a call that only a signal of its own ends.

    A daemon: nothing that it may still have to say is worth keeping a process for.
    """
    thread = threading.Thread(target=run, name="interlock-events", daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # a thread begins with its maker's mask
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread
