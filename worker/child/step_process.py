"""The state of a process that runs steps, kept from one of Celery's signals to the next.

`worker.installation` connects its methods to Celery's signals. In a prefork pool each child is such a process; elsewhere MAIN is,
its bodies run side by side, and only the last error is used, which each thread has for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interlock.core.fault_points import fault_point
from interlock.signals.steps.held_attempt import held_attempt
from interlock.signals.steps.receivers import (
    claim_attempt,
    report_failure,
    report_retry,
    report_success,
    report_unsignalled,
)

from .body_interruption import BodyInterrupter
from .last_error import LastError

if TYPE_CHECKING:
    from celery import Task

    from interlock.signals.steps.run_through_session import RunThroughSession

__all__ = ["StepProcess", "step_process"]


class StepProcess:
    """One process.

    Attributes:
        interrupter: Handles the soft signal.
        session: Of the message whose steps run, where the process may run through.
    """

    def __init__(self) -> None:
        self.interrupter = BodyInterrupter()
        self.session: RunThroughSession | None = None
        self._last_error = LastError()

    def on_prerun(self, task: Task[..., Any], task_id: str) -> None:
        """`task_prerun`: claim the attempt; `StepMixin.before_start` decides by the claim whether the body runs."""
        self._last_error.release()
        self.interrupter.install()
        claim_attempt(task, task_id, self.session)

    def on_success(self, task: Task[..., Any], result: Any) -> None:
        """`task_success`."""
        self.interrupter.leave()
        report_success(task, result)

    def on_failure(self, task: Task[..., Any], exception: BaseException) -> None:
        """`task_failure`."""
        self.interrupter.leave()
        report_failure(task, exception)

    def on_retry(self, task: Task[..., Any], reason: Any) -> None:
        """`task_retry`."""
        self.interrupter.leave()
        report_retry(task, reason)

    def on_postrun(self, task: Task[..., Any], state: str | None, outcome: Any) -> None:
        """`task_postrun`: report what no other signal tells of."""
        self.interrupter.leave()
        report_unsignalled(task, state, outcome)
        if held_attempt(task.request) is not None:
            self._last_error.keep(outcome)
            fault_point("task.ack", str(task.request.id))


step_process = StepProcess()
"""This process; a module global, since Celery's signals pass no state along."""
