"""The small world around a run: messages that are lost or come twice, workers that die, and a person who does anything.

Nothing bounds it but the number of workers and of steps: every fault and every verb may come in every state, as often as it likes.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from interlock.core.attempts.attempts import Report
from interlock.core.model.states import StepState, WorkflowState

from .situation import CURRENT, DRAINER, DRAINING, HOLDER, OLD, Situation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from interlock.core.model.retry import FailureKind

    from .step import Step

__all__ = ["Happening", "Violation", "World"]

S, W = StepState, WorkflowState
WORKERS: Final = 2
_NEW, _STRANGER = "new", "stranger"


class Violation(Exception):
    """An event had an outcome that it must never have."""


class Happening(Enum):
    """What came of an event."""

    IMPOSSIBLE = "impossible"
    FREE = "free"
    """It happened by a fault, or because somebody wished it."""
    DUE = "due"
    """It happened because it was due: a live worker goes on, a timer fires, a person who is waited for answers."""


class World(Situation):
    """A situation in which something may happen."""

    @property
    def idle(self) -> bool:
        """Whether a worker is free to take a message."""
        return len(self.alive) < WORKERS

    # --- messages ----------------------------------------------------------------------------------------------------

    def deliver(self, key: str) -> Happening:
        """A worker takes the message of the current attempt."""
        if key not in self.flying or not self.idle:
            return Happening.IMPOSSIBLE
        self.flying.discard(key)
        if key in self.burnt:
            self.run.revoked(key, CURRENT, terminated=False)
            return Happening.DUE
        return Happening.DUE if self._claim(key, CURRENT) else Happening.FREE

    def deliver_copy(self, key: str) -> Happening:
        """A worker takes another copy of a message whose attempt is claimed already, or no longer wanted."""
        step = self.run.steps[key]
        if not step.task or (step.state in (S.PENDING, S.RUNNING) and step.claim is None):
            return Happening.IMPOSSIBLE
        self._claim(key, CURRENT)
        return Happening.FREE

    def deliver_old(self, key: str) -> Happening:
        """A worker takes the message of an older attempt."""
        if not self.run.steps[key].task:
            return Happening.IMPOSSIBLE
        self._claim(key, OLD)
        return Happening.FREE

    def _claim(self, key: str, task: int) -> bool:
        run, step = self.run, self.run.steps[key]
        state, held = run.state, step.claim is not None
        drained = step.drain is not None and not step.drain_over
        if not run.claim(key, task, _NEW):
            return False
        if state is not W.EXECUTING:
            raise Violation(f"a claim of {key} was granted while the run is {state}")
        if held:
            raise Violation(f"a second claim of {key} was granted while another worker holds it")
        if task != CURRENT:
            raise Violation(f"a claim of an attempt of {key} was granted that another one has replaced")
        if drained:
            raise Violation(f"a claim of {key} was granted while the attempt before it still holds the step")
        self.alive.add((key, _NEW))
        return True

    def claim_again(self, key: str) -> Happening:
        """A worker repeats its claim because the answer was lost."""
        if (key, HOLDER) not in self.alive:
            return Happening.IMPOSSIBLE
        if self.run.state is W.EXECUTING and not self.run.claim(key, CURRENT, HOLDER):
            raise Violation(f"the holder of {key} repeats its claim and is refused")
        return Happening.FREE

    def lose(self, key: str) -> Happening:
        """The message of the current attempt never arrives, or its worker dies before the claim commits."""
        if key not in self.flying:
            return Happening.IMPOSSIBLE
        self.flying.discard(key)
        return Happening.FREE

    # --- bodies ------------------------------------------------------------------------------------------------------

    def complete(self, key: str, who: str) -> Happening:
        """A body returns."""
        if (key, who) not in self.alive:
            return Happening.IMPOSSIBLE
        state = self.run.steps[key].state
        report = self.run.complete(key, CURRENT if who == HOLDER else DRAINING, who)
        expected = {S.RUNNING: Report.RECORDED, S.PAUSED: Report.DEFERRED}.get(state, Report.STALE)
        if report is not expected:
            raise Violation(f"the result of the attempt that holds {key} is {report.value}, not {expected.value}")
        if report is Report.DEFERRED and self.run.steps[key].late != "completed":
            raise Violation(f"the result that {key} brings while it is paused is not kept")
        self.alive.discard((key, who))
        return Happening.DUE

    def fail(self, key: str, who: str, kind: FailureKind) -> Happening:
        """A body ends without a result."""
        if (key, who) not in self.alive:
            return Happening.IMPOSSIBLE
        self.run.fail(key, CURRENT if who == HOLDER else DRAINING, who, kind)
        self.alive.discard((key, who))
        return Happening.FREE

    def discard(self, key: str, *, expired: bool = False) -> Happening:
        """A worker throws the message of the current attempt away, for it was revoked by somebody else, or has expired."""
        if key not in self.flying:
            return Happening.IMPOSSIBLE
        self.flying.discard(key)
        if not expired:
            self.burnt.add(key)
        self.run.revoked(key, CURRENT, terminated=False, expired=expired)
        return Happening.FREE

    def terminate(self, key: str, *, softly: bool) -> Happening:
        """Somebody else has a body ended: its process is killed, or (`softly`) it is asked to stop, and may not."""
        if (key, HOLDER) not in self.alive:
            return Happening.IMPOSSIBLE
        self.run.revoked(key, CURRENT, terminated=True, softly=softly)
        if not softly:
            self.alive.discard((key, HOLDER))
        return Happening.FREE

    def revoke_old(self, key: str) -> Happening:
        """The same is told of an attempt that was given up."""
        if not self.run.steps[key].task:
            return Happening.IMPOSSIBLE
        self.run.revoked(key, OLD, terminated=True)
        return Happening.FREE

    def die(self, key: str, who: str) -> Happening:
        """The worker of a body dies, before or after the body has done its work, and tells nobody."""
        if (key, who) not in self.alive:
            return Happening.IMPOSSIBLE
        self.alive.discard((key, who))
        return Happening.FREE

    def complete_old(self, key: str) -> Happening:
        """A body returns whose attempt was given up long ago."""
        return self._old(key, None)

    def fail_old(self, key: str) -> Happening:
        """A body fails whose attempt was given up long ago."""
        return self._old(key, "error")

    def _old(self, key: str, kind: FailureKind | None) -> Happening:
        if not self.run.steps[key].task:
            return Happening.IMPOSSIBLE
        for task in (OLD, CURRENT):  # of an older attempt, and of a claim of this one that was never granted
            run = self.run
            report = run.fail(key, task, _STRANGER, kind) if kind else run.complete(key, task, _STRANGER)
            if report in (Report.RECORDED, Report.DEFERRED):
                raise Violation(f"a report of {key} was {report.value} that does not come from its holder")
        return Happening.FREE

    # --- time --------------------------------------------------------------------------------------------------------

    def lease_ends(self, key: str) -> Happening:
        """The sweeper finds a lease that has ended: the worker is dead, or cut off from the database."""
        alive = (key, HOLDER) in self.alive
        if not self.run.lease_ends(key):
            return Happening.IMPOSSIBLE
        return Happening.FREE if alive else Happening.DUE

    def drain_ends(self, key: str) -> Happening:
        """The same of an attempt that was told to stop; the sweeper has nothing to do yet."""
        step = self.run.steps[key]
        if step.drain is None or step.drain_over:
            return Happening.IMPOSSIBLE
        self.run.drain_ends(key)
        return Happening.FREE if (key, DRAINER) in self.alive else Happening.DUE

    def send_again(self, key: str) -> Happening:
        """The sweeper sends the message of an unclaimed attempt again."""
        return Happening.DUE if self.run.send_again(key) else Happening.IMPOSSIBLE

    def retry_comes(self, key: str) -> Happening:
        """The sweeper begins the next attempt of a failed step."""
        return Happening.DUE if self.run.retry_comes(key) else Happening.IMPOSSIBLE

    def deadline_passes(self, key: str) -> Happening:
        """The sweeper decides what nobody has decided."""
        return Happening.FREE if self.run.deadline_passes(key) else Happening.IMPOSSIBLE

    def revive(self) -> Happening:
        """The sweeper looks at a run in which nothing moves."""
        return Happening.FREE if self.run.revive() else Happening.IMPOSSIBLE

    # --- the operator ------------------------------------------------------------------------------------------------

    def resume(self) -> Happening:
        """The run goes on; a person is waited for, so this is due."""
        kept = [step for step in self.run.steps.values() if step.late == "completed" and not step.own_pause]
        if not self.run.resume():
            return Happening.IMPOSSIBLE
        self._require_kept(kept)
        return Happening.DUE

    def _require_kept(self, kept: Iterable[Step]) -> None:
        """Unless a failure that came before it has ended or paused the run again, a result that was kept is recorded."""
        thrown_away = [step.plan.key for step in kept if step.state is not S.COMPLETED]
        if thrown_away and self.run.state not in (W.PAUSED, W.FAILED):
            raise Violation(f"the result that {thrown_away[0]} brought while it was paused is thrown away")

    def resume_step(self, key: str) -> Happening:
        """A step goes on that was paused by itself; this is due as well."""
        step = self.run.steps[key]
        kept = [step] if step.late == "completed" else []
        if not self.run.resume_step(key):
            return Happening.IMPOSSIBLE
        self._require_kept(kept)
        return Happening.DUE

    def approve(self, key: str) -> Happening:
        """The question of a step is answered; this is due as well."""
        return Happening.DUE if self.run.decide(key, "approved") else Happening.IMPOSSIBLE

    def unsendable(self, key: str) -> Happening:
        """Nothing can be sent for an attempt: its arguments cannot be evaluated, or no worker knows its task."""
        recorded = self.run.unsendable(key, CURRENT) is Report.RECORDED
        return Happening.FREE if recorded else Happening.IMPOSSIBLE

    def ask(self, verb: str, *arguments: Any) -> Happening:
        """Any other verb: somebody wishes it."""
        return Happening.FREE if getattr(self.run, verb)(*arguments) else Happening.IMPOSSIBLE
