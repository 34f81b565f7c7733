"""`interlock.current_step()`: what a body can ask and tell about the step that it runs as.

A task works without it. Called outside a step, `current_step()` is None, so that one body can serve both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery._state import get_current_task
from celery.exceptions import Ignore

from interlock.core.json_values import checked_json, cut_text
from interlock.core.plan import ApprovalSpec
from interlock.signals.runtime import Runtime, runtime_of
from interlock.signals.step_header import StepHeader, read_header

from .held_attempt import HeldAttempt, StepInterrupted, held_attempt

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ApprovalRequested", "CurrentStep", "Decision", "current_step"]

_ASK_AGAIN_AFTER_S = 1.0
_MAX_PROGRESS_BYTES = 10_000
_MAX_PROGRESS_CHARACTERS = 500


class ApprovalRequested(Ignore):
    """Raised by `request_approval` to end the attempt; let it pass."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How a request was decided.

    Attributes:
        approved: Whether it was approved.
        by: Who decided, `engine` for a deadline.
        comment: What they said.
    """

    approved: bool
    by: str | None
    comment: str | None


class CurrentStep:
    """The step that this process is running.

    Attributes:
        run_id: The workflow run.
        step_id: The step.
        session_id: Whose run it is.
        key: The step's key in its plan.
        attempt: Ordinal of the attempt, from 1.
        task_id: Celery's id of the attempt.
        idempotency_key: The same over all attempts of the step, and of no other: what to give to a payment provider.
    """

    def __init__(self, header: StepHeader, held: HeldAttempt, runtime: Runtime) -> None:
        self.run_id = header.run_id
        self.step_id = header.step_id
        self.session_id = header.session_id
        self.key = header.key
        self.attempt = header.attempt
        self.task_id = held.ref.task_id
        self.idempotency_key = header.idempotency_key
        self._held = held
        self._runtime = runtime

    def should_stop(self) -> bool:
        """Whether the workflow was paused or cancelled: finish what must be finished, and return or raise.

        Where the pool can interrupt a body (prefork), `StepInterrupted` comes by itself; elsewhere this is how a body
        learns of it. The database is asked at most once a second.
        """
        held = self._held
        now = time.monotonic()
        if not held.interrupted and now - held.asked_at >= _ASK_AGAIN_AFTER_S:
            held.asked_at = now
            with held.shield():
                stop = self._runtime.step_calls.must_stop(held.ref)
            held.interrupted = stop
        return held.interrupted

    @property
    def last_checkpoint(self) -> Any:
        """What `checkpoint` stored last, in this attempt or an earlier one; None where there is none."""
        with self._held.shield():
            return self._runtime.step_calls.checkpoint(self._held.ref)

    def checkpoint(self, data: Any) -> None:
        """Store how far the work is, as JSON: a later attempt goes on from `last_checkpoint`.

        Raises:
            NotJson: `data` is not JSON.
            PayloadTooLarge: It is over `interlock_max_result_bytes`.
            StepInterrupted: The attempt no longer counts; its work is not wanted.
        """
        document = checked_json("checkpoint", data, self._runtime.settings.max_result_bytes)
        with self._held.shield():
            saved = self._runtime.step_calls.save_checkpoint(self._held.ref, document)
        if not saved:
            raise self._superseded()

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the work is; shown by `status` and, about once a second, by `watch` and `run` on the command line.

        Args:
            done: Units done.
            total: Units in all, if known.
            message: A few words.

        Raises:
            NotJson: A number is none, or the message is not text.
            StepInterrupted: The attempt no longer counts.
        """
        document = {
            "done": done,
            "total": total,
            "message": None if message is None else cut_text(message, _MAX_PROGRESS_CHARACTERS),
        }
        document = checked_json("progress", document, _MAX_PROGRESS_BYTES)
        with self._held.shield():
            saved = self._runtime.step_calls.save_progress(self._held.ref, document)
        if not saved:
            raise self._superseded()

    def request_approval(
        self,
        prompt: str | None = None,
        *,
        approvers: Sequence[str] = (),
        guard: str | None = None,
        deadline_s: float | None = None,
        default: str = "reject",
        on_reject: str = "continue",
        name: str = "approval",
    ) -> Decision:
        """Ask a person; the attempt ends here, and the step is run again with the decision, which this then returns.

        What was done before the call is done again by the next attempt, unless a checkpoint says that it was done.

        Args:
            prompt: What is asked.
            approvers: Who may decide; anybody by default.
            guard: Name of a guard that says who may decide.
            deadline_s: Seconds after which `default` is decided.
            default: `approve` or `reject`.
            on_reject: `continue` returns the rejection, `cancel` cancels the workflow.
            name: Tells several questions of one step apart.

        Raises:
            NotJson: A text cannot be stored.
            PayloadTooLarge: They are over `interlock_max_argument_bytes`.
            ApprovalRequested: Not decided yet; let it pass.
        """
        checked_json(
            "request_approval",
            {"prompt": prompt, "approvers": [*approvers], "guard": guard, "name": name},
            self._runtime.settings.max_argument_bytes,
        )
        with self._held.shield():
            decided = self._runtime.step_calls.decision(self._held.ref, name)
        if decided is not None:
            return Decision(approved=decided["approved"], by=decided["by"], comment=decided["comment"])
        spec = ApprovalSpec.model_validate(
            {
                "prompt": prompt,
                "approvers": list(approvers),
                "guard": guard,
                "deadline_s": deadline_s,
                "default": default,
                "on_reject": on_reject,
            },
        )
        self._held.asks = {**spec.model_dump(mode="json"), "name": name}
        raise ApprovalRequested

    def _superseded(self) -> StepInterrupted:
        self._held.interrupted = True
        return StepInterrupted()


def current_step() -> CurrentStep | None:
    """The step that this process (or thread) is running, or None outside of one."""
    task: Any = get_current_task()
    request = None if task is None else task.request
    header = None if request is None else read_header(request)
    held = None if request is None else held_attempt(request)
    if header is None or held is None or not held.claim.granted:
        return None
    return CurrentStep(header, held, runtime_of(task.app))
