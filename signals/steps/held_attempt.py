"""The attempt that a process has claimed, kept on its Celery request while the body runs."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from celery.exceptions import SoftTimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery.exceptions import Retry

    from interlock.core.attempts.claims import AttemptRef, Claim

    from .run_through_session import RunThroughSession

__all__ = ["HELD_KEY", "HeldAttempt", "StepInterrupted", "held_attempt", "hold_attempt"]

HELD_KEY: Final = "_interlock_held"
"""Where a request has its attempt: an attribute, and a key of the mapping that it is made of."""


class StepInterrupted(SoftTimeLimitExceeded):
    """Raised in a running body whose workflow was paused or cancelled; clean up and let it pass.

    A subclass of Celery's `SoftTimeLimitExceeded`, so code that cleans up at a soft limit does so here too.
    """


@dataclass(slots=True)
class HeldAttempt:
    """An attempt that this process has claimed, kept on its request.

    Attributes:
        ref: Which.
        claim: The answer to the claim.
        interrupted: The body was told to stop: what it raises then does not count.
        soft_limited: A soft signal that is not ours has reached the body: a time limit, or a foreign revoke.
        has_own_message: False where its process has run through to it, on the message of an earlier step.
        session: May run what the attempt makes ready, where there is one.
        begun_at: When the attempt reached this process; monotonic seconds.
        asked_at: When the body last asked whether to stop; monotonic seconds.
        asks: The approval that the body asks for by ending its attempt.
        retry: What the body has asked of Celery by `self.retry`, however it went on after that.
        retry_cause: The exception that it gave there; Celery keeps one that can be pickled.
        reported: How it ended was reported, or it was tried.
        shielded: The body is inside `shield`.
        owed: What a signal would have raised in the body, had it not been shielded.
    """

    ref: AttemptRef
    claim: Claim
    interrupted: bool = False
    soft_limited: bool = False
    has_own_message: bool = True
    session: RunThroughSession | None = None
    begun_at: float = field(default_factory=time.monotonic)
    asked_at: float = 0.0
    asks: dict[str, Any] | None = None
    retry: Retry | None = None
    retry_cause: BaseException | None = None
    reported: bool = False
    shielded: bool = False
    owed: SoftTimeLimitExceeded | None = None

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Keep the soft signal out of a block, and raise it behind it: it would tear a transaction and its connection."""
        self.shielded = True
        try:
            yield
        finally:
            self.shielded = False
            if self.owed is not None:
                owed, self.owed = self.owed, None
                raise owed


def held_attempt(request: Any) -> HeldAttempt | None:
    """What was claimed for this request, if it is a step's and has asked."""
    found = getattr(request, HELD_KEY, None)
    return found if isinstance(found, HeldAttempt) else None


def hold_attempt(request: Any, held: HeldAttempt) -> None:
    """Keep an attempt on the request of its task."""
    setattr(request, HELD_KEY, held)
