"""What workers say of attempts, and what is believed; the model of `core/attempts`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interlock.core.attempts.attempts import Report
from interlock.core.model.readiness import ReportDisposition, classify_report
from interlock.core.model.states import StepState, WorkflowState

from .flow import Flow

if TYPE_CHECKING:
    from collections.abc import Hashable

    from interlock.core.model.retry import FailureKind

    from .step import Step

__all__ = ["Reports"]

S, W = StepState, WorkflowState


class Reports(Flow):
    """A run that listens to workers."""

    def claim(self, key: str, task: int, token: Hashable) -> bool:
        """A message has been taken: whether the body may run."""
        step = self.steps[key]
        if not self._may_claim(step, task):
            # Its own claim, whose answer was lost, is granted again.
            return self.state is W.EXECUTING and step.state is S.RUNNING and self._holds(step, task, token)
        if step.state is S.PENDING:
            self._move(step, S.RUNNING)
        step.claim, step.send_due = token, False
        return True

    def _may_claim(self, step: Step, task: int) -> bool:
        unclaimed = step.state in (S.PENDING, S.RUNNING) and step.claim is None
        return self.state is W.EXECUTING and unclaimed and step.task == task

    def complete(self, key: str, task: int, token: Hashable) -> Report:
        """A body reports its result."""
        step = self.steps[key]
        disposition = classify_report(
            step.state, holds=self._holds(step, task, token), drains=self._drains(step, task, token)
        )
        if disposition is ReportDisposition.RECORD:
            self._complete(step)
            return Report.RECORDED
        if disposition is ReportDisposition.DEFER:
            self._keep(step, "completed")
            return Report.DEFERRED
        if disposition is ReportDisposition.RELEASE:
            self._end_drain(step)
        return self._stale(step, task, S.COMPLETED)

    def fail(self, key: str, task: int, token: Hashable | None, kind: FailureKind) -> Report:
        """An attempt has ended without a result; without a token its supervisor says so."""
        step = self.steps[key]
        disposition = classify_report(
            step.state,
            holds=self._holds(step, task, token),
            drains=self._drains(step, task, token),
            failure=kind,
        )
        if disposition is ReportDisposition.STALE:
            return self._stale(step, task, S.FAILED)
        if disposition is ReportDisposition.RECORD and kind == "revoked":
            self._revoke(step, ended=True)
        elif disposition is ReportDisposition.RECORD:
            self._record_failure(step, kind)
        elif disposition is ReportDisposition.DEFER:
            self._keep(step, kind)
        else:
            self._end_drain(step)
            if disposition is ReportDisposition.DISPATCH_SUCCESSOR:
                step.send_due = True
                self._send(step)
        return Report.RECORDED

    def unsendable(self, key: str, task: int) -> Report:
        """The message of an attempt cannot be made: its arguments or its task do not exist."""
        step = self.steps[key]
        if self.state is not W.EXECUTING or step.task != task or step.claim is not None:
            return self._stale(step, task, S.FAILED)
        if step.state is S.PENDING:
            self._fail_unclaimed(step)
            self._step_failed(step)
        elif step.state is S.RUNNING:
            self._record_failure(step, "unusable")
        else:
            return self._stale(step, task, S.FAILED)
        return Report.RECORDED

    def revoked(self, key: str, task: int, *, terminated: bool, softly: bool = False, expired: bool = False) -> Report:
        """Celery has thrown a message away, or (`terminated`) ended a body or asked it to end, and not because of us."""
        step = self.steps[key]
        live = step.state in (S.PENDING, S.RUNNING) and step.task == task
        if not live or (step.claim is not None and not terminated):
            return self._stale(step, task, S.CANCELLED)
        if not expired:
            self._revoke(step, ended=terminated and not softly)
        elif self.state is not W.EXECUTING:
            return self._stale(step, task, S.FAILED)
        else:
            if step.state is S.PENDING:
                self._move(step, S.RUNNING)
            self._record_failure(step, "error")
        return Report.RECORDED

    def _revoke(self, step: Step, *, ended: bool) -> None:
        """Do what the plan says of a revoke from outside."""
        policy = step.plan.on_revoke
        if policy == "redispatch" and self.state is not W.EXECUTING:
            return
        if policy != "cancel" and step.state is S.PENDING:
            self._move(step, S.RUNNING)
        self._move(step, {"cancel": S.CANCELLED, "pause": S.PAUSED, "redispatch": S.FAILED}[policy])
        self._release(step)
        if ended:
            self._end_drain(step)
        if policy == "redispatch":
            self._retry_now(step)
        else:
            self._stop("soft", step)
        if policy == "cancel":
            self._settled(step)
            return
        step.own_pause = step.own_pause or policy == "pause"
        self._finish()

    def _holds(self, step: Step, task: int, token: Hashable | None) -> bool:
        known = step.claim is not None if token is None else step.claim == token
        return known and step.task == task

    def _drains(self, step: Step, task: int, token: Hashable | None) -> bool:
        known = step.drain is not None if token is None else step.drain == token
        return known and step.drain_task == task

    def _keep(self, step: Step, report: str) -> None:
        step.late = report
        self._end_drain(step)

    def _stale(self, step: Step, task: int, outcome: StepState) -> Report:
        return Report.REPEATED if step.state is outcome and step.task == task else Report.STALE
