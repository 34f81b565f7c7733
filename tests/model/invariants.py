"""The invariants of SPEC section 3 that a single state of a run can break, and those that a single move can.

That every move is an edge of the table is checked where it is made (`Run._move`); who may claim and report, where the world
claims and reports. Cascades are one call of the model, and so one transaction; history, events and sessions are not modelled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interlock.core.model.readiness import Readiness, readiness
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import WORKFLOW_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from interlock.core.model.states import WorkflowState as RunState

    from .run import Run
    from .step import Step

__all__ = ["faults", "faults_of_a_move"]

S, W = StepState, WorkflowState


def faults_of_a_move(before: RunState, waiting: Iterable[Step], run: Run) -> Iterator[str]:
    """What is wrong with what has just happened.

    Args:
        before: The state that the run was in.
        waiting: Its steps that had not begun.
        run: The run as it is now.
    """
    if WORKFLOW_TABLE.is_terminal(before) and run.moves:
        yield f"the run had ended as {before}, and {run.moves[0][0] or 'the run'} has moved"
    for step in waiting:
        decision = readiness(step.plan.trigger, run.true_counts(step))
        if step.state is S.SKIPPED and decision is not Readiness.SKIP and step.plan.condition is not False:
            yield f"{step.plan.key} was skipped, and should {decision.value}"
        if (step.attempt or step.request) and decision is not Readiness.START:
            yield f"{step.plan.key} has started, and should {decision.value}"


def faults(run: Run) -> Iterator[str]:
    """What is wrong with the state that a run is in."""
    yield from _counters(run)
    yield from _questions(run)
    if run.state is W.EXECUTING:
        yield from _forgotten(run)
    elif run.state is W.PAUSED:
        yield from _goes_on(run)
    elif run.state is W.WAITING_APPROVAL:
        yield from _waits_in_vain(run)
    else:
        yield from _ended_badly(run)


def _counters(run: Run) -> Iterator[str]:
    """What is counted is what there is."""
    open_steps = sum(not step.settled for step in run.steps.values())
    waiting = sum(step.state is S.WAITING_APPROVAL for step in run.steps.values())
    if run.open_steps != open_steps:
        yield f"the run counts {run.open_steps} open steps, and there are {open_steps}"
    if run.waiting_steps != waiting:
        yield f"the run counts {run.waiting_steps} steps that wait for a person, and there are {waiting}"
    for step in run.steps.values():
        # While the run is paused nobody counts; at the resume everything is counted afresh.
        if run.state is W.EXECUTING and step.state is S.PENDING and step.counts != run.true_counts(step):
            yield f"{step.plan.key} counts {step.counts}, and it should be {run.true_counts(step)}"


def _questions(run: Run) -> Iterator[str]:
    """A step waits for a person as long as its question is open, or its answer has not taken effect."""
    ended = WORKFLOW_TABLE.is_terminal(run.state)
    for step in run.steps.values():
        asking = step.request == "open" or (step.plan.key in run.undone and not ended)
        if asking != (step.state is S.WAITING_APPROVAL):
            yield f"{step.plan.key} is {step.state}, and its question is {step.request}"


def _forgotten(run: Run) -> Iterator[str]:
    """In an executing run something will move each unsettled step, and each that may start has been started."""
    if not any(not step.settled for step in run.steps.values()):
        yield "every step is settled, and the run goes on executing"
    for step in run.steps.values():
        if step.state is S.PENDING and not step.attempt:
            decision = readiness(step.plan.trigger, run.true_counts(step))
            if decision is not Readiness.WAIT:
                yield f"{step.plan.key} is pending and nothing will ever {decision.value} it"
        elif not (step.settled or _has_a_mover(step)):
            yield f"{step.plan.key} is {step.state} and has no lease, no timer and no person to wait for"
        if step.claim is not None and step.drain is not None:
            yield f"two attempts hold {step.plan.key}"


def _has_a_mover(step: Step) -> bool:
    if step.state is S.WAITING_APPROVAL:
        return step.request == "open"
    if step.state is S.PAUSED:
        return step.own_pause
    return step.claim is not None or step.retry_due or step.send_due


def _goes_on(run: Run) -> Iterator[str]:
    """In a paused run nothing runs, is held or is sent."""
    for step in run.steps.values():
        if step.state is S.RUNNING or step.claim is not None or step.send_due:
            yield f"the run is paused, and {step.plan.key} goes on as {step.state}"


def _waits_in_vain(run: Run) -> Iterator[str]:
    """A run waits for people only if there is a question, and nothing else that could move."""
    if not any(step.request == "open" for step in run.steps.values()):
        yield "the run waits for a decision that nobody is asked for"
    for step in run.steps.values():
        if step.state in (S.RUNNING, S.PAUSED) or step.claim is not None or step.retry_due or step.send_due:
            yield f"the run waits for a decision, and {step.plan.key} could go on as {step.state}"


def _ended_badly(run: Run) -> Iterator[str]:
    """In a run that has ended every step is settled and nothing is due; it completed only if no failure counts."""
    for step in run.steps.values():
        if not step.settled:
            yield f"the run is {run.state}, and {step.plan.key} is {step.state}"
        if step.claim is not None or step.retry_due or step.send_due:
            yield f"the run is {run.state}, and something is due for {step.plan.key}"
        if run.state is W.COMPLETED and step.state is S.FAILED and step.plan.on_failure != "continue":
            yield f"the run is completed, and {step.plan.key} has failed"
