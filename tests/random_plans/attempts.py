"""What the runs of one step's body, one after the other, may have made of the step. Pure.

Of each run of a body follows one of a few outcomes, or one of several where somebody paused or ended its run meanwhile. The sum of
them is a set of possible standings; a body that ran though none of them lets it run, ran when it must not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .facts import Body, Case
    from .plans import StepPlan

__all__ = ["NEAR_S", "Standing", "standings"]

NEAR_S: Final = 2.0
"""How far apart two things may be noted that happened at once: clocks are the same, machines are busy."""


class _Outcome(Enum):
    """What one run of a body makes of its attempt."""

    RESULT = "result"
    FAILURE = "failure"
    FOR_GOOD = "a failure that is not retried"
    LOST = "lost with its process"
    AGAIN = "not counted"
    QUESTION = "a question"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a step may stand.

    Attributes:
        state: `open` (it will go on by itself, or has not begun), `asked`, `completed`, or `failed` for good.
        failures: Counted so far.
        lost: Attempts lost so far.
        waits: The last attempt has failed, and another one is to come.
        ever_failed: It has been failed for good.
    """

    state: str = "open"
    failures: int = 0
    lost: int = 0
    waits: bool = False
    ever_failed: bool = False


def standings(case: Case, step: StepPlan, key: str) -> tuple[set[Standing], list[str]]:
    """The possible standings of a step, or an item, after all runs of its body, and what must not be."""
    now: set[Standing] = {Standing()}
    wrong: list[str] = []
    bodies = case.bodies.get(key, ())
    for place, body in enumerate(bodies):
        ready = {again for standing in now for again in _ready(case, key, standing, body)}
        if not ready:
            states = "/".join(sorted({standing.state for standing in now}))
            wrong.append(f"{key}: body {body.number} ran although the step was {states} ({_story(bodies[:place])})")
            ready = {Standing()}
        possible, faults = _outcomes(case, step, body)
        wrong += faults
        now = {_after(standing, outcome, step) for standing in ready for outcome in possible}
    wrong += _overlaps(case, step, bodies)
    return now, wrong


def _ready(case: Case, key: str, standing: Standing, body: Body) -> Iterator[Standing]:
    """The standings in which another body may run."""
    if standing.state == "open":
        yield standing
    elif standing.state == "asked":
        # A deadline is the step's own question's alone: this one has none.
        if any(said.asked_at < body.began_at for said in case.accepted("approve", "reject", key=key)):
            yield Standing("open", standing.failures, standing.lost, ever_failed=standing.ever_failed)
    elif standing.state == "failed" and any(said.asked_at < body.began_at for said in case.accepted("retry", key=key)):
        yield Standing("open", standing.failures, standing.lost, ever_failed=True)
        yield Standing("open", ever_failed=True)


def _after(standing: Standing, outcome: _Outcome, step: StepPlan) -> Standing:
    failures = standing.failures + (outcome in (_Outcome.FAILURE, _Outcome.FOR_GOOD))
    lost = standing.lost + (outcome is _Outcome.LOST)
    if outcome is _Outcome.RESULT:
        return Standing("completed", failures, lost, ever_failed=standing.ever_failed)
    if outcome is _Outcome.QUESTION:
        return Standing("asked", failures, lost, ever_failed=standing.ever_failed)
    over = (
        outcome is _Outcome.FOR_GOOD
        or (outcome is _Outcome.FAILURE and failures >= step.max_attempts)
        or (outcome is _Outcome.LOST and lost >= step.max_lost)
    )
    if over:
        return Standing("failed", failures, lost, ever_failed=True)
    return Standing("open", failures, lost, waits=True, ever_failed=standing.ever_failed)


_BY_EXCEPTION: Final = {
    "Wrong": _Outcome.FAILURE,
    "SystemExit": _Outcome.FAILURE,
    "Mute": _Outcome.FAILURE,
    "Hopeless": _Outcome.FOR_GOOD,
    "Declined": _Outcome.FOR_GOOD,
    "Reject": _Outcome.FOR_GOOD,
    "Ignore": _Outcome.FOR_GOOD,
    "Retry": _Outcome.AGAIN,
    "ApprovalRequested": _Outcome.QUESTION,
    "kill": _Outcome.LOST,
}


def _outcomes(case: Case, step: StepPlan, body: Body) -> tuple[set[_Outcome], list[str]]:
    """What may have come of one run of a body, and what must not be."""
    possible = _said(body)
    # A body that is only not to be followed keeps its result.
    if _stops(case, body) - ({"drain"} if body.how == "return" else set()):
        possible.add(_Outcome.AGAIN)
    if _limited(step, body):
        possible.add(_Outcome.FAILURE)
    if possible:
        return possible, []
    how = "without a word" if body.how is None else f"with {body.how}"
    return {_Outcome.FAILURE, _Outcome.AGAIN}, [
        f"{body.key}: body {body.number} ({body.fate}) ended {how}, for no reason"
    ]


def _said(body: Body) -> set[_Outcome]:
    """What follows from how the body ended, by itself."""
    if body.how == "return":
        return {"nul": {_Outcome.FOR_GOOD}, "outlast": set()}.get(body.fate, {_Outcome.RESULT})
    if body.fate == "unaskable" and body.how is not None:  # whatever it is told, its question cannot be stored
        return {_Outcome.FAILURE, _Outcome.FOR_GOOD}
    return {_BY_EXCEPTION[body.how]} if body.how in _BY_EXCEPTION else set()


def _stops(case: Case, body: Body) -> set[str]:
    """How its run or its step was stopped while it ran: by which mode of a pause, or by `end`."""
    until = float("inf") if body.ended_at is None else body.ended_at
    near = [
        each
        for each in case.moments
        if each.key in (None, body.key) and body.began_at - NEAR_S <= each.at <= until + NEAR_S
    ]
    return {case.mode_of(each) for each in near}


def _limited(step: StepPlan, body: Body) -> bool:
    """Whether its limit may have ended it. Celery counts it from when a process is given the message, so it may come early."""
    if step.timeout_s is None:
        return False
    early = body.how == "SoftTimeLimitExceeded" or body.ended_at is None
    return early or (body.ended_at or 0) - body.began_at > step.timeout_s / 2


def _overlaps(case: Case, step: StepPlan, bodies: Sequence[Body]) -> Iterator[str]:
    """Two bodies of one step at once: only behind one that outlasts its limit where nothing can stop it."""
    for one, other in pairwise(bodies):
        if one.attempt == other.attempt:
            yield f"{one.key}: bodies {one.number} and {other.number} ran for the same attempt {one.attempt}"
        ended_at = one.ended_at
        if ended_at is not None and other.began_at < ended_at - 0.01 and not (step.timeout_s and one.fate == "outlast"):
            yield f"{one.key}: body {other.number} began while body {one.number} ran"
    if case.ended_at is not None:
        for body in bodies:
            if body.began_at > case.ended_at + NEAR_S:
                yield f"{body.key}: body {body.number} began {body.began_at - case.ended_at:.1f} s after the end of the run"


def _story(bodies: Sequence[Body]) -> str:
    return ", ".join(f"{body.number}: {body.how or 'no word'}" for body in bodies) or "no body had run"
