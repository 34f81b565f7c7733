"""Breaks the reference cycles of the exceptions that steps end with, once the next task begins.

Celery's tracer keeps an exception in a local variable, and its traceback keeps the tracer's frame: a cycle, which holds some 300 kB
of copied line tables (billiard's) until a full pass of the garbage collector, perhaps a thousand exceptions later. A worker whose
steps fail, retry or are refused would grow by hundreds of megabytes before it shrinks again.
"""

from __future__ import annotations

import threading

__all__ = ["LastError"]


class LastError(threading.local):
    """The exception that a thread's last step ended with."""

    _error: BaseException | None = None

    def keep(self, outcome: object) -> None:
        """Keep a step's outcome where it is an exception: other receivers of the signal that told it may still look at it."""
        if isinstance(outcome, BaseException):
            self._error = outcome

    def release(self) -> None:
        """Break the cycles of the kept exception and of those it came from."""
        error, self._error = self._error, None
        if error is None:
            return
        waiting, seen = [error], set[int]()
        while waiting:
            error = waiting.pop()
            if id(error) in seen:
                continue
            seen.add(id(error))
            error.__traceback__ = None
            behind = (error.__context__, error.__cause__, getattr(error, "exc", None))  # `exc`: of Celery's Retry
            waiting += [each for each in behind if isinstance(each, BaseException)]
