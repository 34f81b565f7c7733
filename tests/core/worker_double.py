"""Stands for broker and workers: keeps the dispatches that commits cause, claims and reports as a worker would."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from interlock.core.attempts.attempts import AttemptRef, Attempts, Claim, Report
from interlock.core.attempts.outcomes import Failure
from interlock.core.attempts.undelivered import Undelivered

if TYPE_CHECKING:
    from interlock.core import Database, StateChange
    from interlock.core.attempts.run_through import RunThroughOffer
    from interlock.core.events import Dispatch, Effects, Interrupt
    from interlock.core.settings import Settings


class WorkerDouble:
    """One queue and any number of workers, in this process and without threads.

    Attributes:
        attempts: The product's own door for claims and reports.
        undelivered: The one for messages that nobody ran.
        queue: Dispatches that no worker has taken yet, oldest first.
        changes: Every state change that was delivered, in order.
        interrupts: Every interrupt that was delivered, in order.
        held: Claimed attempts by step key.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self.attempts = Attempts(database, settings)
        self.undelivered = Undelivered(database, settings)
        self.queue: list[Dispatch] = []
        self.changes: list[StateChange] = []
        self.interrupts: list[Interrupt] = []
        self.held: dict[str, AttemptRef] = {}
        database.after_commit.append(self._deliver)

    def _deliver(self, effects: Effects) -> None:
        self.queue += effects.dispatches
        self.changes += effects.changes
        self.interrupts += effects.interrupts

    @property
    def queued(self) -> list[str]:
        """Keys of the steps in the queue, sorted."""
        return sorted(dispatch.key for dispatch in self.queue)

    def take(self, key: str) -> AttemptRef:
        """Take the oldest message of the step from the queue, with a token to claim it with."""
        index = next(i for i, dispatch in enumerate(self.queue) if dispatch.key == key)
        dispatch = self.queue.pop(index)
        return AttemptRef(dispatch.run_id, dispatch.step_id, dispatch.task_id, token=uuid4().hex)

    def offer(self, key: str, worker: str = "worker@1") -> tuple[AttemptRef, Claim]:
        """Take a message and claim its attempt, granted or not."""
        ref = self.take(key)
        return ref, self.attempts.claim(ref, worker)

    def claim(self, key: str, worker: str = "worker@1") -> AttemptRef:
        """Take a message and claim its attempt, which must be granted."""
        ref, claim = self.offer(key, worker)
        assert claim.granted, claim.reason
        self.held[key] = ref
        return ref

    def complete(self, key: str, result: object = None) -> Report:
        """Report the result of a held attempt."""
        return self.attempts.complete(self.held.pop(key), result)

    def run_through(self, key: str, offer: RunThroughOffer, result: object = None) -> str | None:
        """Report the result of a held attempt and offer to run the next; returns the key of the step that is held now."""
        _, claimed = self.attempts.complete_and_claim_next(self.held.pop(key), result, offer)
        if claimed is None:
            return None
        self.held[claimed.key] = AttemptRef(claimed.run_id, claimed.step_id, claimed.task_id, offer.token)
        return claimed.key

    def fail(self, key: str, failure: Failure | None = None) -> Report:
        """Report the failure of a held attempt, an error by default."""
        return self.attempts.fail(self.held.pop(key), failure or Failure("error", "ValueError: no"))

    def run(self, key: str, result: object = None) -> None:
        """Claim and complete."""
        self.claim(key)
        assert self.complete(key, result) is Report.RECORDED

    def run_failing(self, key: str, failure: Failure | None = None) -> None:
        """Claim and fail."""
        self.claim(key)
        assert self.fail(key, failure) is Report.RECORDED

    def run_all(self) -> None:
        """Run everything that is queued and what follows, in order."""
        while self.queue:
            self.run(self.queue[0].key)
