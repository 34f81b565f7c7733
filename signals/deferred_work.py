"""What a pool's child does while PostgreSQL works: it asks first, and waits for the answer when it needs it.

The tracer of a step is wrapped (`worker.tracing`). Before it the claim is sent, and `task_prerun` waits for the answer; at
`task_success` the result is sent, and its answer is waited for at the end of the tracer. Celery's own work lies between. Nothing
that follows from an answer is done before it: no body without its claim, no message and no event of a result before its commit, no
acknowledgement before that. Elsewhere (threads, solo, a task called in the process) everything is waited for at once.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["at_end", "begun", "ending", "is_ending"]

T = TypeVar("T")

logger = logging.getLogger("interlock.receivers")

_due: list[Callable[[], object]] | None = None
_is_ending = False


def begun(begin: Callable[[], Callable[[], T]]) -> Callable[[], T]:
    """Begin now; what is returned ends it.

    Called again, it begins and ends anew. What was raised at the beginning is raised at the end, where it is seen to.
    """
    first: Callable[[], T] | None
    try:
        first = begin()
    except Exception as error:  # noqa: BLE001 - it is only kept
        first = _raiser(error)

    def end() -> T:
        nonlocal first
        once, first = first, None
        return begin()() if once is None else once()

    return end


def at_end(call: Callable[[], object]) -> None:
    """Call it at the end of the tracer; now, where nothing marks one."""
    if _due is None:
        call()
    else:
        _due.append(call)


def is_ending() -> bool:
    """Whether a pool's child is about what is due at the end of a tracer, with no body's code around it."""
    return _is_ending


@contextmanager
def ending() -> Iterator[None]:
    """Around a tracer: at its end, however it ends, call what is due then, in its order."""
    global _due, _is_ending  # noqa: PLW0603 - one tracer at a time per process, and Celery's receivers have to find it
    due: list[Callable[[], object]] = []
    _due = due
    try:
        yield
    finally:
        _due, _is_ending = None, True
        try:
            for call in due:
                _call(call)
        finally:
            _is_ending = False


def _call(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception:  # as Celery does with what its signals' receivers raise
        logger.exception("the end of a step failed; its lease will run out and the step is tried again")


def _raiser(error: Exception) -> Callable[[], Any]:
    def again() -> Any:
        raise error

    return again
