"""A session of run-through: what a message's process offers at the end of a step, and what it runs next.

`worker.child.run_through` opens a session for a message and runs what the session holds; the report of a result makes the offer. A
pool's child runs one body at a time, so it has one session at a time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

from interlock.core.attempts.claims import AttemptRef
from interlock.core.attempts.run_through import RunThroughOffer
from interlock.core.plan.run_through import NEXT_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core.events import Dispatch

__all__ = ["RunThroughSession"]


class RunThroughSession:
    """A process that may run further steps on one message.

    Args:
        message_id: Celery id of that message.
        kinds: What the process could run; see `RunThroughOffer`.
        next_kinds: What lies behind the step that it begins with, by its plan.
        limit_s: For how long.
        may_continue: Whether it still may; asked at the end of each step.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        message_id: str,
        kinds: frozenset[str],
        next_kinds: frozenset[str],
        *,
        limit_s: float,
        may_continue: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._message_id = message_id
        self._kinds = kinds
        self._offered = kinds & next_kinds
        self._clock = clock
        self._until = clock() + limit_s
        self._may_continue = may_continue
        self._next: tuple[Dispatch, AttemptRef] | None = None

    def offer(self) -> RunThroughOffer | None:
        """The offer to run what the step that ends now makes ready; None where time is over, or nothing fits."""
        if not self._offered or self._clock() >= self._until or not self._may_continue():
            return None
        return RunThroughOffer(self._message_id, uuid4().hex, self._offered)

    def claimed(self, dispatch: Dispatch, offer: RunThroughOffer) -> None:
        """Note that the offer was taken up: this process holds that attempt."""
        self._next = dispatch, AttemptRef(dispatch.run_id, dispatch.step_id, dispatch.task_id, offer.token)
        self._offered = self._kinds & frozenset(dispatch.spec.get(NEXT_KINDS, ()))

    def take_next(self) -> tuple[Dispatch, AttemptRef] | None:
        """The attempt to run next, once."""
        following, self._next = self._next, None
        return following
