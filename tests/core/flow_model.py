"""A run and its steps as plain Python: what the SQL of the engine must agree with after every operation.

Only `core.advance` is shared with the product. Nothing is counted down here: every count is taken from the states themselves,
and every rule is applied until nothing changes any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from interlock.core.advance import DependencyCounts, Readiness, Trigger, is_settled, readiness
from interlock.core.states import StepState, WorkflowState

S, W = StepState, WorkflowState


@dataclass
class ModelStep:
    """One step, its plan and where it stands.

    Attributes:
        delayed: Whether a retry waits for a timer.
        condition: What its `when` gives: True, False, or None for one that cannot be evaluated.
        attempt: Number of the current attempt.
        claimed: Whether a body holds the current attempt.
        drains: Whether a body holds an earlier attempt that may still report.
        late: Report that came while paused.
        retrying: Whether it has failed and will be tried again.
    """

    key: str
    after: tuple[str, ...]
    trigger: Trigger
    on_failure: str
    max_attempts: int
    max_lost: int
    delayed: bool
    condition: bool | None
    state: StepState = S.PENDING
    attempt: int = 0
    claimed: bool = False
    drains: bool = False
    late: str | None = None
    retrying: bool = False
    failures: int = 0
    losses: int = 0

    @property
    def settled(self) -> bool:
        """Whether nothing more will come of it."""
        return is_settled(self.state, retry_coming=self.retrying)


@dataclass
class Model:
    """One run. Each method is an operation; it does what follows as well."""

    steps: dict[str, ModelStep]
    state: WorkflowState = W.EXECUTING
    trail: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.advance()

    @property
    def open_steps(self) -> int:
        """Steps that are not settled."""
        return sum(not step.settled for step in self.steps.values())

    def counts(self, step: ModelStep) -> DependencyCounts:
        """The step's dependencies, counted from their states."""
        ends = [self.steps[key] for key in step.after]
        settled = [end for end in ends if end.settled]
        return DependencyCounts(
            open=len(ends) - len(settled),
            unmet=sum(end.state is not S.COMPLETED for end in settled),
            failed=sum(end.state is S.FAILED for end in settled),
        )

    def claimable(self, key: str, attempt: int) -> bool:
        """Whether a claim of this attempt would be granted."""
        step = self.steps[key]
        due = step.state in (S.PENDING, S.RUNNING) and not step.claimed
        return self.state is W.EXECUTING and due and step.attempt == attempt > 0

    def dispatched(self) -> set[tuple[str, int]]:
        """Attempts whose message must be on its way: claimable, and not waiting for an older body to end."""
        return {
            (key, step.attempt)
            for key, step in self.steps.items()
            if not step.drains and self.claimable(key, step.attempt)
        }

    # what workers do

    def claim(self, key: str) -> None:
        """A body begins."""
        self.steps[key].state, self.steps[key].claimed = S.RUNNING, True

    def complete(self, key: str) -> str:
        """A body reports its result; returns what becomes of the report."""
        step = self.steps[key]
        holds = step.state is S.RUNNING and (step.claimed or step.drains)
        if not holds:
            return self._keep(step, "completed")
        self._ended(step)
        step.state = S.COMPLETED
        self.advance()
        return "recorded"

    def fail(self, key: str) -> str:
        """A body reports an error."""
        step = self.steps[key]
        if step.state is S.RUNNING and (step.claimed or step.drains):
            self._failed(step, lost=False)
            self.advance()
            return "recorded"
        return self._keep(step, "failed")

    def interrupted(self, key: str) -> None:
        """A body that was told to stop has stopped."""
        self.steps[key].drains = False

    def lose(self, key: str) -> None:
        """The worker of a body is dead."""
        self._failed(self.steps[key], lost=True)
        self.advance()

    def retry(self, key: str) -> None:
        """A retry's time has come."""
        self._attempt(self.steps[key])

    def _keep(self, step: ModelStep, report: str) -> str:
        if step.state is S.PAUSED and step.drains:
            step.late, step.drains = report, False
            return "kept" if report == "completed" else "recorded"
        drained, step.drains = step.drains, False
        return "released" if drained else "stale"

    # what people do

    def pause(self) -> None:
        """Running steps stop; the bodies they leave behind may still report."""
        self.state = W.PAUSED
        for step in self.steps.values():
            if step.state is S.RUNNING:
                step.state = S.PAUSED
                step.drains, step.claimed = step.claimed or step.drains, False

    def resume(self) -> None:
        """Paused steps run again, and what was reported meanwhile is applied in plan order."""
        self.state = W.EXECUTING
        paused = [step for step in self.steps.values() if step.state is S.PAUSED]
        for step in paused:
            if step.late is None:
                self._attempt(step)
        for step in paused:
            if step.late is None or self.state is not W.EXECUTING:
                continue
            report, step.late, step.state = step.late, None, S.RUNNING
            if report == "completed":
                self._ended(step)
                step.state = S.COMPLETED
            else:
                self._failed(step, lost=False)
            self.advance()
        self.advance()

    def cancel(self) -> None:
        """Everything that is not settled is cancelled."""
        self._end(W.CANCELLED)

    # what follows

    def advance(self) -> None:
        """Start and skip until nothing changes, and end the run when nothing is open."""
        while self.state is W.EXECUTING:
            if not any(self._decide(step) for step in self.steps.values()):
                break
        if self.state is W.EXECUTING and not self.open_steps:
            counting = [s for s in self.steps.values() if s.state is S.FAILED and s.on_failure != "continue"]
            self.state = W.FAILED if counting else W.COMPLETED

    def _decide(self, step: ModelStep) -> bool:
        if step.state is not S.PENDING or step.attempt:
            return False
        decision = readiness(step.trigger, self.counts(step))
        if decision is Readiness.WAIT:
            return False
        if decision is Readiness.SKIP or step.condition is False:
            step.state = S.SKIPPED
        elif step.condition is None:
            step.attempt, step.state = 1, S.FAILED
        else:
            step.attempt = 1
        return True

    def _attempt(self, step: ModelStep) -> None:
        step.state, step.retrying, step.claimed = S.RUNNING, False, False
        step.attempt += 1

    def _ended(self, step: ModelStep) -> None:
        step.claimed = step.drains = False

    def _failed(self, step: ModelStep, *, lost: bool) -> None:
        self._ended(step)
        step.failures += not lost
        step.losses += lost
        step.state = S.FAILED
        again = step.losses < step.max_lost if lost else step.failures < step.max_attempts
        if again and step.delayed:
            step.retrying = True
        elif again:
            self._attempt(step)
        elif step.on_failure == "fail":
            self._end(W.FAILED)
        elif step.on_failure == "pause":
            self.pause()

    def _end(self, state: WorkflowState) -> None:
        self.state = state
        for step in self.steps.values():
            step.retrying = False
            if not step.settled:
                step.state = S.CANCELLED
                step.drains, step.claimed = step.claimed or step.drains, False
