"""One run as plain Python: the rules by which its rows move, without SQL, clock, broker or threads.

This is the only model of a run. The search in this folder looks at every state that it can reach, and
`tests/core/orchestration/test_flow_model.py` compares it with the rows that the product writes. What production has as pure
functions it asks for: the tables, `readiness` and `retry`. The rest is written a second time, in `flow`, `reports` and here.

Each public method is one transaction. What the commit sends, and what it moved, is in `sent`, `stops` and `moves` until
`forget` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import WORKFLOW_TABLE

from .reports import Reports

if TYPE_CHECKING:
    from interlock.core.model.retry import FailureKind

    from .step import Step

__all__ = ["Run"]

S, W = StepState, WorkflowState
Decision = Literal["approved", "rejected"]


class Run(Reports):
    """One run, to which anything may happen."""

    # --- what falls due ----------------------------------------------------------------------------------------------

    def lease_ends(self, key: str, kind: FailureKind = "worker_lost") -> bool:
        """No heartbeat has come for the holder, or (`timeout`) it has run too long."""
        step = self.steps[key]
        if step.state is not S.RUNNING or step.claim is None:
            return False
        self.fail(key, step.task, step.claim, kind)
        return True

    def drain_ends(self, key: str) -> None:
        """No heartbeat has come for an attempt that was told to stop. Only a clock moves: nobody is told."""
        self.steps[key].drain_over = True

    def send_again(self, key: str) -> bool:
        """The message of an unclaimed attempt is due once more."""
        step = self.steps[key]
        waits = step.state in (S.PENDING, S.RUNNING) and step.claim is None and step.send_due
        if self.state is not W.EXECUTING or not waits or (step.drain is not None and not step.drain_over):
            return False
        self._end_drain(step)
        self._send(step)
        return True

    def retry_comes(self, key: str) -> bool:
        """The time of a retry has come."""
        step = self.steps[key]
        if self.state is not W.EXECUTING or step.state is not S.FAILED or not step.retry_due:
            return False
        self._retry_now(step)
        return True

    def deadline_passes(self, key: str) -> bool:
        """The deadline of a question has passed; that of a paused run waits with it."""
        step = self.steps[key]
        if self.state not in (W.EXECUTING, W.WAITING_APPROVAL) or step.request != "open":
            return False
        return self.decide(key, "approved" if step.plan.default == "approve" else "rejected")

    def is_overdue(self) -> bool:
        """The deadline of the run has passed; that of a paused one waits with it."""
        if self.state not in (W.EXECUTING, W.WAITING_APPROVAL):
            return False
        self._end(W.FAILED if self.state is W.EXECUTING else W.CANCELLED)
        return True

    def revive(self) -> bool:
        """An executing run in which nothing moves is looked at once more."""
        still = (S.PAUSED, S.WAITING_APPROVAL)
        if self.state is not W.EXECUTING or any(self._due(step) or step.state in still for step in self.steps.values()):
            return False
        self._reconcile()
        return True

    # --- what people do; False where it is refused -------------------------------------------------------------------

    def pause(self, mode: str = "drain") -> bool:
        """Pause the run, and what runs in it."""
        if self.state is not W.EXECUTING:
            return False
        self._pause(mode)
        return True

    def resume(self) -> bool:
        """Go on, with everything that came meanwhile."""
        if self.state is not W.PAUSED:
            return False
        self._move_run(W.EXECUTING)
        self.resuming = True
        self._reopen_intended()
        paused = [step for step in self.steps.values() if step.state is S.PAUSED and not step.own_pause]
        again = [step for step in paused if step.late is None]
        late = [step for step in self.steps.values() if step.late and (step in paused or step.state is S.FAILED)]
        for step in again:
            self._move(step, S.RUNNING)
        for step in again:
            self._begin(step)
        for step in self.steps.values():
            if step.state is S.PENDING and step.task:
                step.send_due = True
                self._send(step)
        for step in late:
            if self.state is not W.EXECUTING:
                break
            self._apply_late(step)
        if self.state is W.EXECUTING:
            self._apply_decisions()
        self.resuming = False
        if self.state is W.EXECUTING:
            self._reconcile()
        return True

    def cancel(self) -> bool:
        """End the run where it stands."""
        if WORKFLOW_TABLE.is_terminal(self.state):
            return self.state is W.CANCELLED  # once more: nothing changes
        self._end(W.CANCELLED)
        return True

    def pause_step(self, key: str, mode: str = "drain") -> bool:
        """Pause one running step, or have one that was paused with the run stay so over its resume."""
        step = self.steps[key]
        if self.state is W.PAUSED and step.state is S.PAUSED:
            step.own_pause = True
            return True
        if self.state not in (W.EXECUTING, W.PAUSED) or step.state not in (S.RUNNING, S.PAUSED):
            return False
        if step.state is S.RUNNING:
            self._move(step, S.PAUSED)
            self._release(step)
            step.own_pause = True
        if mode != "drain":
            self._stop(mode, step)
        self._finish()
        return True

    def resume_step(self, key: str) -> bool:
        """Let a step go on that was paused by itself; in a paused run, with the run."""
        step = self.steps[key]
        if step.state is not S.PAUSED or not step.own_pause:
            return False
        step.own_pause = False
        if self.state is W.PAUSED:
            return True
        if step.late is not None:
            self._apply_late(step)
        else:
            self._move(step, S.RUNNING)
            self._begin(step)
        self._finish()
        return True

    def decide(self, key: str, decision: Decision) -> bool:
        """Answer the question of a step; while the run is paused the answer waits with it."""
        step = self.steps[key]
        if step.request != "open":
            return False
        step.request = decision
        self.undone.append(key)
        if self.state is not W.PAUSED:
            self._apply(step)
        return True

    def retry(self, key: str) -> bool:
        """Run a failed step again."""
        return self._correct(key, "retry")

    def settle(self, key: str) -> bool:
        """Give a failed step the result that it should have had."""
        return self._correct(key, "settle")

    def _correct(self, key: str, intent: str) -> bool:
        step = self.steps[key]
        if self.state not in (W.EXECUTING, W.PAUSED) or step.state is not S.FAILED:
            return False
        if self.state is W.PAUSED:
            step.late = intent
        else:
            self._apply_intent(step, intent)
        return True

    def _reopen_intended(self) -> None:
        """Count what was asked for while paused as open before any of it is done."""
        failed = [step for step in self.steps.values() if step.state is S.FAILED and step.late and not step.retry_due]
        for step in failed:
            step.retry_due = True
        self.open_steps += len(failed)
        if failed:
            self._recount()

    def _apply_intent(self, step: Step, intent: str) -> None:
        step.late = None
        if not step.retry_due:
            self.open_steps += 1
        if intent == "settle":
            self._move(step, S.RUNNING)
            self._recount()
            self._complete(step)
        elif step.plan.asks and not step.task:
            self._move(step, S.RUNNING)
            step.retry_due = False
            self._recount()
            self._begin_or_ask(step)
            self._finish()
        else:
            self._retry_now(step)
            self._recount()

    def _apply_late(self, step: Step) -> None:
        report, step.late = step.late, None
        if step.state is S.FAILED:
            self._apply_intent(step, str(report))
            return
        self._move(step, S.RUNNING)
        if report == "completed":
            self._complete(step)
        else:
            self._record_failure(step, report)  # type: ignore[arg-type]
