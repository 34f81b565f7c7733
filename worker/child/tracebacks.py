"""Lets go of the exceptions of steps that are over.

Celery's tracer keeps an exception in a local variable, and a traceback keeps the tracer's frame: a cycle, which holds some
300 kB of copied line tables (billiard's) until a full pass of the garbage collector, which may be a thousand exceptions away.
A worker whose steps fail, retry or are refused would grow by hundreds of megabytes before it shrinks again.
"""

from __future__ import annotations

import threading

__all__ = ["let_go", "remember"]


class _Last(threading.local):
    error: BaseException | None = None


_last = _Last()  # of each thread that runs bodies


def remember(outcome: object) -> None:
    """Keep the exception that a step ended with, until `let_go`: other receivers of this signal may still look at it."""
    if isinstance(outcome, BaseException):
        _last.error = outcome


def let_go() -> None:
    """Break the cycles of the last exception and of those behind it: once the next task begins, nobody looks at them any more."""
    error, _last.error = _last.error, None
    if error is None:
        return
    waiting, seen = [error], set[int]()
    while waiting:
        error = waiting.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        error.__traceback__ = None
        behind = (
            error.__context__,
            error.__cause__,
            getattr(error, "exc", None),
        )  # `exc`: what Celery's Retry is about
        waiting += [each for each in behind if isinstance(each, BaseException)]
