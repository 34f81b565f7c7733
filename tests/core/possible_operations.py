"""What could be done next to a run that is held side by side with its model: what its state invites, and anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import WORKFLOW_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.step import Step

    from .side_by_side import SideBySide

__all__ = ["Operation", "anything", "due", "inviting"]

Operation: TypeAlias = tuple[Any, ...]
"""A method of `SideBySide` and its arguments."""

S, W = StepState, WorkflowState
_MODES = ("drain", "interrupt", "terminate")
_ENDINGS = ("error", "interrupted", "celery_retry", "shutdown", "timeout", "revoked")
_AS_OLD = 6  # of what is past, the latest few: older news differs in nothing


def due(both: SideBySide) -> list[Operation]:
    """What brings the run nearer to its end: what live workers, timers and the people who are waited for would do."""
    found: list[Operation] = [("claim", place) for place in range(len(both.queue))]
    found += [("complete", place) for place in range(len(both.bodies))]
    if both.model.state is W.PAUSED:
        found.append(("resume",))
    for key, step in both.model.steps.items():
        found += [(name, key) for name in _timers(both, step)]
        if step.own_pause and step.state is S.PAUSED:
            found.append(("resume_step", key))
        if step.request == "open":
            found.append(("approve", key))
    return found


def _timers(both: SideBySide, step: Step) -> Iterator[str]:
    """Timers that would fire if nothing else happened."""
    held = {body.ref.token for body in both.bodies}
    if step.claim is not None and step.claim not in held:
        yield "lease_ends"
    if step.drain is not None and not step.drain_over and step.drain not in held:
        yield "drain_ends"
    if both.model.state is W.EXECUTING:
        if step.retry_due:
            yield "retry_comes"
        if step.send_due and (step.drain is None or step.drain_over):
            yield "send_again"


def inviting(both: SideBySide) -> list[Operation]:
    """What the state of the run invites, the likelier more than once."""
    model = both.model
    found = due(both) * 3
    if WORKFLOW_TABLE.is_terminal(model.state):
        return [*found, *anything(both)]
    for place in range(len(both.bodies)):
        found += [("fail", place, kind) for kind in ("error", *_ENDINGS)]
        found += [("die", place), ("is_lost", place), ("claim_again", place)]
        found += [("terminate", place, "softly"), ("terminate", place, "at once")]
    for place in range(len(both.queue)):
        found += [("lose", place), ("unsendable", place), ("discard", place, "expired"), ("discard", place, "revoked")]
    if model.state is W.EXECUTING:
        found += [("pause", mode) for mode in _MODES]
    for key, step in model.steps.items():
        found += [(*operation[:1], key, *operation[1:]) for operation in _of_a_step(step)]
    return found


def _of_a_step(step: Step) -> Iterator[tuple[str, ...]]:
    """Operations without the key."""
    if step.state is S.RUNNING:
        yield from (("pause_step", mode) for mode in _MODES)
    if step.claim is not None:
        yield from (("lease_ends",), ("runs_too_long",))
    if step.drain is not None and not step.drain_over:
        yield ("drain_ends",)
    if step.state is S.FAILED:
        yield from (("retry",), ("settle",)) * 2
    if step.request == "open":
        yield from (("reject",), ("deadline_passes",))


def anything(both: SideBySide) -> list[Operation]:
    """What may come in any state, and is often refused: every verb, every timer that runs, and old news."""
    found: list[Operation] = [("resume",), ("sweep",), ("is_overdue",), *[("pause", mode) for mode in _MODES]]
    for key, step in both.model.steps.items():
        found += [(verb, key) for verb in ("resume_step", "approve", "reject", "retry", "settle")]
        found += [("pause_step", key, mode) for mode in _MODES]
        found += [("retry_comes", key)] if step.retry_due else []
        found += [("send_again", key)] if step.send_due else []
        found += [("deadline_passes", key)] if step.request is not None else []
    found += [("claim_old", place) for place in range(len(both.past))[-_AS_OLD:]]
    for place in range(len(both.gone))[-_AS_OLD:]:
        found += [("complete_old", place), ("was_lost", place), ("was_terminated", place)]
        found += [("fail_old", place, kind) for kind in _ENDINGS]
    return found
