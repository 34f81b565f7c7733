"""Retries calls and transactions after transient errors of the database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_attempt

from interlock.core.backoff import Backoff
from interlock.core.errors import DatabaseBusy
from interlock.core.events import Effects
from interlock.core.fault_points import fault_point

from .errors import is_transient

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection
    from tenacity.stop import StopBaseT

__all__ = ["retry_call", "retry_transient", "run_transaction"]

T = TypeVar("T")

_TRIES: Final = 8
_PAUSES: Final = Backoff(0.02, 1.28, jitter=1.0)  # losers of a deadlock must not meet again at once


def retry_call(call: Callable[[], T], *, when: Callable[[BaseException], bool], backoff: Backoff, stop: StopBaseT) -> T:
    """Return what `call` returns, however often it must be called.

    Args:
        call: May be called many times.
        when: Whether another call may succeed after this error; others are raised at once.
        backoff: The pauses between calls.
        stop: When to give up, counted from the second call; the last error is raised then.
    """
    try:
        return (
            call()
        )  # without a policy, as nearly always: setting one up and following it costs a tenth of a claim's time
    except Exception as error:
        if not when(error):
            raise
    time.sleep(backoff.pause_s(1))
    return Retrying(retry=retry_if_exception(when), wait=backoff.wait, stop=stop, reraise=True)(call)


def retry_transient(call: Callable[[], T]) -> T:
    """Return what `call` returns; it is called again after a deadlock, a serialization failure or a lock timeout.

    Args:
        call: Opens its transaction by itself, and ends it: everything is evaluated anew.

    Raises:
        DatabaseBusy: The database gave up on all eight tries.
    """
    try:
        return retry_call(call, when=is_transient, backoff=_PAUSES, stop=stop_after_attempt(_TRIES - 1))
    except DBAPIError as error:
        if not is_transient(error):
            raise
        msg = f"the database gave up on the transaction {_TRIES} times: {error.orig}"
        raise DatabaseBusy(msg) from error


def run_transaction(
    begin: Callable[[], AbstractContextManager[Connection]],
    work: Callable[[Connection, Effects], T],
    kind: str,
    subject: str = "",
) -> tuple[T, Effects]:
    """Run `work` in one transaction, again after a transient failure.

    Args:
        begin: Opens the transaction; leaving its block commits, or rolls back where the block raises.
        work: Gets the connection and an empty `Effects` to fill.
        kind: Names the fault points before and behind the commit.
        subject: What it is about, for them.

    Returns:
        What `work` returned, and the effects, which are the caller's to deliver.

    Raises:
        DatabaseBusy: The database gave up on every try.
    """

    def once() -> tuple[T, Effects]:
        effects = Effects()
        with begin() as connection:
            result = work(connection, effects)
            fault_point(f"{kind}.commit", subject)
        fault_point(f"{kind}.committed", subject)
        return result, effects

    return retry_transient(once)
