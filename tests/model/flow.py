"""What follows from a move: what starts, is skipped, pauses, waits and ends; the model of `core/orchestration`.

It is written in the same order, so that the counters, and not only what they should be, are the product's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interlock.core.model.readiness import DependencyCounts, Readiness, readiness
from interlock.core.model.retry import Retry, decide
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE

from .step import Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from interlock.core.model.retry import FailureKind

    from .plans import Plan

__all__ = ["Flow", "IllegalMove"]

S, W = StepState, WorkflowState


class IllegalMove(Exception):
    """A rule asked for a move that the table does not have."""


class Flow:
    """One run, its steps, and their consequences."""

    def __init__(self, plan: Plan) -> None:
        """Begin to execute `plan`."""
        self.plan = plan
        self.state = W.EXECUTING
        self.steps = {
            key: Step(step, counts=DependencyCounts(open=len(step.after))) for key, step in plan.steps.items()
        }
        self.open_steps = len(self.steps)
        self.waiting_steps = 0
        self.undone: list[str] = []
        self.resuming = False
        self.forget()
        self._propagate(self._start([step for step in self.steps.values() if not step.counts.open]))
        self._finish()

    def forget(self) -> None:
        """Begin a new transaction: forget what the last one sent and moved."""
        self.sent: list[tuple[str, int]] = []
        self.stops: list[tuple[str, int, str]] = []
        self.moves: list[tuple[str | None, Any, Any]] = []

    # --- questions ---------------------------------------------------------------------------------------------------

    def _ask(self, step: Step) -> None:
        self._move(step, S.WAITING_APPROVAL)
        step.request = "open"
        self.waiting_steps += 1

    def _begin_or_ask(self, step: Step) -> None:
        if step.request is None:
            self._ask(step)
        else:
            self._begin(step)

    def _apply_decisions(self) -> None:
        """Apply what was decided while the run was paused, in the order in which it was."""
        for key in list(self.undone):
            if self.state is not W.EXECUTING:
                return
            self._apply(self.steps[key])

    def _apply(self, step: Step) -> None:
        self.undone.remove(step.plan.key)
        if step.request == "rejected" and step.plan.on_reject == "cancel":
            self._end(W.CANCELLED)
            return
        if self.state is not W.EXECUTING:
            self._move_run(W.EXECUTING)
        self.waiting_steps -= 1
        self._move(step, S.RUNNING)
        if not step.plan.works or (step.request == "rejected" and not step.task):
            self._complete(step)
        else:
            self._begin(step)
            self._finish()

    # --- attempts ----------------------------------------------------------------------------------------------------

    def _begin(self, step: Step) -> None:
        """Give the step a new attempt, and have it sent."""
        step.attempt += 1
        step.task = step.attempt
        step.claim, step.retry_due, step.send_due = None, False, True
        if step.drain_over:
            self._end_drain(step)
        self._send(step)

    def _retry_now(self, step: Step) -> None:
        self._move(step, S.RUNNING)
        self._begin(step)

    def _send(self, step: Step) -> None:
        if step.drain is None:
            self.sent.append((step.plan.key, step.task))

    def _release(self, step: Step) -> None:
        """The step stops running: its claim becomes a draining one, and no timer runs any more."""
        if step.claim is not None:
            step.drain, step.drain_task, step.drain_over = step.claim, step.task, False
        step.claim, step.retry_due, step.send_due = None, False, False

    def _end_drain(self, step: Step) -> None:
        step.drain, step.drain_task, step.drain_over = None, 0, False

    def _stop(self, mode: str, *steps: Step) -> None:
        """Have the bodies of steps told to stop that still hold on."""
        how = "terminate" if mode == "terminate" else "soft"
        self.stops += [
            (step.plan.key, step.drain_task, how) for step in steps if step.drain is not None and not step.drain_over
        ]

    # --- what follows ------------------------------------------------------------------------------------------------

    def _complete(self, step: Step) -> None:
        self._move(step, S.COMPLETED)
        self._release(step)
        self._end_drain(step)
        step.late = None
        self._settled(step)

    def _record_failure(self, step: Step, kind: FailureKind) -> None:
        step.tally = step.tally.after(kind)
        policy = step.plan.policy
        decision = decide(
            policy,
            failures=step.tally.failures,
            lost=step.tally.lost,
            kind=kind,
            countdown_s=policy.initial_delay_s,
        )
        self._fail(step)
        step.late = None
        if not isinstance(decision, Retry):
            self._step_failed(step)
        elif decision.delay_s > 0:
            step.retry_due = True
        else:
            self._retry_now(step)

    def _fail(self, step: Step) -> None:
        self._move(step, S.FAILED)
        self._release(step)
        self._end_drain(step)

    def _fail_unclaimed(self, step: Step) -> None:
        self._move(step, S.RUNNING)
        step.attempt += 1
        self._fail(step)

    def _step_failed(self, step: Step) -> None:
        if step.plan.on_failure == "continue":
            self._settled(step)
            return
        self.open_steps -= 1
        if step.plan.on_failure == "pause":
            self._pause("drain")
        else:
            self._end(W.FAILED)

    def _settled(self, step: Step) -> None:
        self.open_steps -= 1
        if self.state is W.EXECUTING:
            self._propagate([step])
            self._finish()

    def _propagate(self, settled: Iterable[Step]) -> None:
        """Count steps that have settled, and start or skip those that waited for them, until nothing follows any more."""
        settled = list(settled)
        while settled and self.state is W.EXECUTING:
            counted = self._count_down(settled)
            decided = [(step, readiness(step.plan.trigger, step.counts)) for step in counted if not step.attempt]
            hopeless = [step for step, decision in decided if decision is Readiness.SKIP]
            ready = [step for step, decision in decided if decision is Readiness.START]
            settled = self._skip(hopeless) + self._start(ready)

    def _count_down(self, settled: list[Step]) -> list[Step]:
        """Count what has settled in the steps that wait for it; these, in the plan's order."""
        counted = set()
        for step in settled:
            for key in self.plan.dependents[step.plan.key]:
                dependent = self.steps[key]
                if dependent.state is S.PENDING:
                    dependent.counts = dependent.counts.after(step.state)
                    counted.add(key)
        return [step for key, step in self.steps.items() if key in counted]

    def true_counts(self, step: Step) -> DependencyCounts:
        """The step's dependencies, counted from their states."""
        counts = DependencyCounts(open=len(step.plan.after))
        for key in step.plan.after:
            end = self.steps[key]
            counts = counts.after(end.state) if end.settled else counts
        return counts

    def _recount(self) -> None:
        for step in self.steps.values():
            if step.state is S.PENDING and step.plan.after:
                step.counts = self.true_counts(step)

    def _reconcile(self) -> None:
        """Count everything afresh, and start or skip what was overlooked: after a pause, in which nobody counted."""
        self._recount()
        pending = [step for step in self.steps.values() if step.state is S.PENDING and not step.send_due]
        decided = [(step, readiness(step.plan.trigger, step.counts)) for step in pending]
        settled = self._start([step for step, decision in decided if decision is Readiness.START])
        if self.state is W.EXECUTING:
            settled += self._skip([step for step, decision in decided if decision is Readiness.SKIP])
            self._propagate(settled)
        self.open_steps = sum(not step.settled for step in self.steps.values())
        self._finish()

    def _start(self, ready: Iterable[Step]) -> list[Step]:
        """Start steps whose trigger holds; those that have settled at once."""
        begun, asking, settled = [], [], []
        for step in ready:
            if step.plan.condition is None:
                self._fail_unclaimed(step)
                if step.plan.on_failure != "continue":
                    self._step_failed(step)
                    return []
                self.open_steps -= 1
                settled.append(step)
            elif step.plan.condition is False:
                settled += self._skip([step])
            else:
                (asking if step.plan.asks else begun).append(step)
        for step in begun:
            self._begin(step)
        for step in asking:
            self._move(step, S.RUNNING)
            self._ask(step)
        return settled

    def _skip(self, steps: list[Step]) -> list[Step]:
        for step in steps:
            self._move(step, S.SKIPPED)
            self.open_steps -= 1
        return steps

    def _pause(self, mode: str) -> None:
        self._move_run(W.PAUSED)
        for step in self.steps.values():
            if step.state is S.RUNNING:
                self._move(step, S.PAUSED)
                self._release(step)
            elif step.state is S.PENDING:
                step.send_due = False
        if mode != "drain":
            self._stop(mode, *(step for step in self.steps.values() if step.state is S.PAUSED))

    def _finish(self) -> None:
        """End a run in which every step is settled; let it wait where only people can move it on."""
        if self.state is not W.EXECUTING or self.resuming:
            return
        if self.open_steps > 0:
            if self.waiting_steps and not any(self._moves(step) for step in self.steps.values()):
                self._move_run(W.WAITING_APPROVAL)
            return
        failed = [step for step in self.steps.values() if step.state is S.FAILED]
        counting = any(step.plan.on_failure != "continue" for step in failed)
        self._move_run(W.FAILED if counting else W.COMPLETED)

    def _moves(self, step: Step) -> bool:
        return (step.state is S.RUNNING and step.task > 0) or step.state is S.PAUSED or self._due(step)

    def _due(self, step: Step) -> bool:
        """Whether a timer runs for the step: a lease, a retry, a message that may have to be sent again."""
        return step.claim is not None or step.retry_due or step.send_due

    def _end(self, state: WorkflowState) -> None:
        for step in self.steps.values():
            if step.state is S.FAILED:
                step.retry_due = False
            elif not step.settled:
                self._move(step, S.CANCELLED)
                self._release(step)
            if step.request == "open":
                step.request = "closed"
        self._stop("soft", *(step for step in self.steps.values() if step.state is S.CANCELLED))
        self.open_steps = self.waiting_steps = 0
        self._move_run(state)

    # --- moves -------------------------------------------------------------------------------------------------------

    def _move(self, step: Step, target: StepState) -> None:
        if not STEP_TABLE.allows(step.state, target):
            raise IllegalMove(f"{step.plan.key}: {step.state} → {target}")
        self.moves.append((step.plan.key, step.state, target))
        step.state = target

    def _move_run(self, target: WorkflowState) -> None:
        if not WORKFLOW_TABLE.allows(self.state, target):
            raise IllegalMove(f"run: {self.state} → {target}")
        self.moves.append((None, self.state, target))
        self.state = target
