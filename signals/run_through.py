"""Run-through, as receivers see it: one message on its way from step to step in the process that runs their bodies.

The process's tracer (`worker.run_through`) sets a ride up for a message and goes on with what it holds; the receiver of
`task_success` offers to go on, and `task_prerun` of the next step finds its claim made. A process runs one body at a time.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from interlock.core.attempts.run_through import RunThroughOffer
from interlock.core.plan.run_through import NEXT_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from interlock.core.events import Dispatch

__all__ = ["Ride", "current_ride", "riding"]


class Ride:
    """A process that may go on to further steps.

    Args:
        carrier_id: Celery id of the message that it has.
        kinds: What it may go on to; see `RunThroughOffer`.
        ahead: What lies behind the step that it begins with, by its plan.
        limit_s: For how long.
        may_go_on: Whether it still may; asked at the end of each step.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        carrier_id: str,
        kinds: frozenset[str],
        ahead: frozenset[str],
        *,
        limit_s: float,
        may_go_on: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._carrier_id = carrier_id
        self._kinds = kinds
        self._ahead = kinds & ahead
        self._clock = clock
        self._until = clock() + limit_s
        self._may_go_on = may_go_on
        self._held: tuple[Dispatch, str] | None = None

    def offer(self) -> RunThroughOffer | None:
        """The offer to go on behind the body that ends now; None where its time is over, or there is nothing to go on to."""
        if not self._ahead or self._clock() >= self._until or not self._may_go_on():
            return None
        return RunThroughOffer(self._carrier_id, uuid4().hex, self._ahead)

    def hold(self, dispatch: Dispatch, onward: RunThroughOffer) -> None:
        """The offer was taken up: this process holds that attempt."""
        self._held = dispatch, onward.token
        self._ahead = self._kinds & frozenset(dispatch.spec.get(NEXT_KINDS, ()))

    def take(self) -> tuple[Dispatch, str] | None:
        """The attempt to go on with and the token of its claim, once."""
        held, self._held = self._held, None
        return held


_ride: Ride | None = None


def current_ride() -> Ride | None:
    """The ride of the message that this process works on; None where it is not to go on."""
    return _ride


@contextmanager
def riding(ride: Ride) -> Iterator[Ride]:
    """Make `ride` the current one for the length of a block."""
    global _ride  # noqa: PLW0603 - one message at a time per process, and Celery's receivers have to find it
    _ride = ride
    try:
        yield ride
    finally:
        _ride = None
