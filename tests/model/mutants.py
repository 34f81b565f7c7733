"""Rules with one bug each: what a search must be able to find. None of them is used outside of the tests.

Each is a mistake that the real rules could have: a condition left out of a WHERE, a timer that is not set, something that is
counted twice or not at all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from interlock.core.model.states import StepState, WorkflowState

from .run import Run

if TYPE_CHECKING:
    from collections.abc import Hashable

    from interlock.core.attempts.attempts import Report

    from .step import Step

__all__ = ["MUTANTS"]

S, W = StepState, WorkflowState


class ClaimsWhilePaused(Run):
    """A claim does not ask whether the run executes."""

    def _may_claim(self, step: Step, task: int) -> bool:
        return step.state in (S.PENDING, S.RUNNING) and step.claim is None and step.task == task


class ClaimsTwice(Run):
    """A claim does not ask whether somebody else has it: a duplicate message is run as well."""

    def _may_claim(self, step: Step, task: int) -> bool:
        return self.state is W.EXECUTING and step.state in (S.PENDING, S.RUNNING) and step.task == task


class ClaimsOldAttempts(Run):
    """A claim compares no ids: the message of an attempt that was given up is run."""

    def _may_claim(self, step: Step, task: int) -> bool:
        return super()._may_claim(step, step.task if task else task)


class BelievesAnybody(Run):
    """A result is believed by its id, without its token."""

    def complete(self, key: str, task: int, token: Hashable) -> Report:  # noqa: ARG002 - that is the bug
        return super().complete(key, task, self.steps[key].claim)


class ForgetsResultsWhilePaused(Run):
    """A result that comes while its step is paused is acknowledged, and not kept."""

    def _keep(self, step: Step, report: str) -> None:
        super()._keep(step, report)
        step.late = None if report == "completed" else step.late


class CountsTwice(Run):
    """A join counts each of its dependencies twice."""

    def _count_down(self, settled: list[Step]) -> list[Step]:
        super()._count_down(settled)
        return super()._count_down(settled)


class CountsNothingAfterAPause(Run):
    """A resume does not count what settled while nobody counted."""

    def _reconcile(self) -> None:
        self._finish()


class CorrectsOneByOne(Run):
    """A resume does what was asked of failed steps one after the other, each as if nothing was asked of the next."""

    def _reopen_intended(self) -> None:
        pass


class SkipsNothing(Run):
    """A step whose trigger can no longer hold is started all the same."""

    def _skip(self, steps: list[Step]) -> list[Step]:
        for step in steps:
            self._begin(step)
        return []


class SendsOnce(Run):
    """A message is never due again: one that is lost leaves its step running for ever."""

    def _send(self, step: Step) -> None:
        super()._send(step)
        step.send_due = False


class SweepsNoMessages(Run):
    """The timer is set, and the sweeper does not look at it."""

    def send_again(self, key: str) -> bool:  # noqa: ARG002 - that is the bug
        return False


class ReplacesAtOnce(Run):
    """A new attempt is sent while the body of the one before it may still run."""

    def _send(self, step: Step) -> None:
        self.sent.append((step.plan.key, step.task))


class RetriesAfterTheEnd(Run):
    """The sweeper does not ask whether the run still executes, and the end of a run leaves the timers of retries."""

    def retry_comes(self, key: str) -> bool:
        step = self.steps[key]
        if step.state is not S.FAILED or not step.retry_due:
            return False
        self._retry_now(step)
        return True

    def _end(self, state: WorkflowState) -> None:
        due = [step for step in self.steps.values() if step.state is S.FAILED and step.retry_due]
        super()._end(state)
        for step in due:
            step.retry_due = True


class LeavesStepsOpen(Run):
    """A run completes with its last but one step."""

    def _finish(self) -> None:
        if self.state is W.EXECUTING and not self.resuming and self.open_steps == 1:
            self._move_run(W.COMPLETED)
        super()._finish()


class CompletesInSpiteOfAFailure(Run):
    """A run whose last step settles completes, whatever has failed before."""

    def _step_failed(self, step: Step) -> None:
        step.plan, plan = replace(step.plan, on_failure="continue"), step.plan
        super()._step_failed(step)
        step.plan = plan


class LeavesStepsPaused(Run):
    """A step that was paused with its run, and has brought nothing, is not begun again."""

    def _begin(self, step: Step) -> None:
        if self.resuming and step.attempt:
            step.retry_due = step.send_due = False
        else:
            super()._begin(step)


class ForgetsAnswers(Run):
    """What is decided while the run is paused is never applied."""

    def _apply_decisions(self) -> None:
        pass


class WaitsTooSoon(Run):
    """A run waits for a person although something else in it could go on."""

    def _moves(self, step: Step) -> bool:
        return super()._moves(step) and step.claim is not None


class RevivesTheDead(Run):
    """A resume is possible in every state."""

    def resume(self) -> bool:
        if self.state in (W.CANCELLED, W.FAILED):
            self._move_run(W.EXECUTING)
            return True
        return super().resume()


#: Each with the plan (of `shapes`) that shows its bug, and what is said of it.
MUTANTS = {
    ClaimsWhilePaused: ("one step", "a claim of a was granted while the run is paused"),
    ClaimsTwice: ("one step", "a second claim of a was granted while another worker holds it"),
    ClaimsOldAttempts: ("one step", "a claim of an attempt of a was granted that another one has replaced"),
    BelievesAnybody: ("one step", "a report of a was recorded that does not come from its holder"),
    ForgetsResultsWhilePaused: ("one step", "the result that a brings while it is paused is not kept"),
    CountsTwice: ("a join", "c has started, and should wait"),
    CountsNothingAfterAPause: ("two in a row", "b counts"),
    CorrectsOneByOne: ("fan-in of failures", "c has started, and should wait"),
    SkipsNothing: ("a handler", "b has started, and should skip"),
    SendsOnce: ("one step", "a is pending and has no lease, no timer and no person to wait for"),
    SweepsNoMessages: ("one step", "the run can never end from here"),
    ReplacesAtOnce: ("one step", "a claim of a was granted while the attempt before it still holds the step"),
    RetriesAfterTheEnd: ("one step", "the run counts 0 open steps, and there are 1"),
    LeavesStepsOpen: ("two in a row", "the run is completed, and b is pending"),
    CompletesInSpiteOfAFailure: ("one step", "the run is completed, and a has failed"),
    LeavesStepsPaused: ("one step", "a is running and has no lease, no timer and no person to wait for"),
    ForgetsAnswers: ("a question", "a is waiting_approval and has no lease, no timer and no person to wait for"),
    WaitsTooSoon: ("a question", "the run waits for a decision, and b could go on as pending"),
    RevivesTheDead: ("one step", "run: cancelled → executing"),
}
