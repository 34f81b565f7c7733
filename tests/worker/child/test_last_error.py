"""The exception that a step ended with: looked at until the next task begins, and then let go."""

from __future__ import annotations

import contextlib
import gc
import weakref
from typing import Any

from celery.exceptions import Retry

from interlock.worker.child.last_error import LastError


class Failed(Exception):
    """A body's."""


def _raised(error: Exception, cause: Exception | None = None) -> Exception:
    """The error with a traceback whose frame holds it, as Celery's tracer does."""
    held = error

    def body() -> None:
        raise held from cause

    with contextlib.suppress(type(error)):
        body()
    return held


def test_an_exception_keeps_its_traceback_until_it_is_released() -> None:
    last, error = LastError(), _raised(Failed())
    last.keep(error)
    assert error.__traceback__ is not None
    last.release()
    assert error.__traceback__ is None


def test_what_is_behind_an_exception_is_released_with_it() -> None:
    last, cause, asked = LastError(), _raised(Failed()), _raised(Failed())
    retry: Any = Retry("again", exc=asked)
    error = _raised(retry, cause)
    last.keep(error)
    last.release()
    assert [each.__traceback__ for each in (error, cause, asked)] == [None] * 3


def test_a_released_exception_needs_no_garbage_collector() -> None:
    last = LastError()
    gc.disable()
    try:
        error: Exception | None = _raised(Failed())
        last.keep(error)
        gone = weakref.ref(error)  # type: ignore[arg-type] # it is one
        error = None
        assert gone() is not None
        last.release()
        assert gone() is None
    finally:
        gc.enable()


def test_a_result_is_not_kept() -> None:
    last = LastError()
    last.keep({"a": "result"})
    last.release()
    assert last._error is None
