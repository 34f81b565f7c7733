"""What is known of one run when it has ended, apart from what its history says: the ledger, the people, and how it all stands."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.chaos.ledger import Entry

    from .plans import Act, Plan

__all__ = ["Body", "Case", "Moment", "Said", "StepFact", "bodies_of"]


@dataclass(slots=True)
class Body:
    """One run of a body.

    Attributes:
        key: Of its step.
        name: A random name of this run of the body.
        attempt: Of which attempt.
        number: Which one of this step's, from 0, the runs before a rerun included.
        fate: What it was to do.
        given: The results that it was given, by step.
        began_at: When it began, by `time.time`.
        ended_at: When it said how it ends; None where it did not say.
        how: `return`, `kill` (its own process), or the name of the exception that left it; None where it did not say.
        result: What it returned.
        found: The checkpoint that it found; with `looked`, whether it looked for one.
        looked: See `found`.
        saved: Whether it has stored a checkpoint: its number.
    """

    key: str
    name: str
    attempt: int
    number: int
    fate: str
    given: Mapping[str, Any]
    began_at: float
    ended_at: float | None = None
    how: str | None = None
    result: Any = None
    found: int | None = None
    looked: bool = False
    saved: bool = False


@dataclass(frozen=True, slots=True)
class StepFact:
    """How a step stands.

    Attributes:
        key: Its name.
        status: Its state.
        attempt: How many attempts it has had.
        result: Its result, None for none.
        losses: How many attempts are counted as lost with their worker.
    """

    key: str
    status: str
    attempt: int = 0
    result: Any = None
    losses: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What somebody asked for, and the answer.

    Attributes:
        act: What.
        by: Who.
        asked_at: When the call was made, by `time.time`.
        answered_at: When it returned.
        refusal: Why it was refused; None where it was carried out.
        wrong: It was not refused in any way that is known: an error that must not be.
        result: What it returned, or with `settle` the result that it gave.
    """

    act: Act
    by: str
    asked_at: float
    answered_at: float
    refusal: str | None = None
    wrong: bool = False
    result: Any = None

    @property
    def accepted(self) -> bool:
        """Whether it was carried out."""
        return self.refusal is None


@dataclass(frozen=True, slots=True)
class Moment:
    """A change that stops bodies, or a body that was told to stop.

    Attributes:
        at: When it was committed, by `time.time`.
        key: Of the step; None for the run.
        state: What it came to.
        by: Who moved it.
    """

    at: float
    key: str | None
    state: str
    by: str


@dataclass(frozen=True, slots=True)
class Case:
    """All of one run.

    Attributes:
        plan: Its plan.
        run_id: Its id.
        status: How it ended.
        ended_at: When, by `time.time`; None where it has not.
        steps: How its steps stand, items included, by key.
        bodies: The runs of bodies, by key of their step, in the order in which they began.
        said: What people asked for.
        moments: When the run and its steps were paused and ended.
        forked_from: The run that it runs again.
    """

    plan: Plan
    run_id: str
    status: str
    ended_at: float | None
    steps: Mapping[str, StepFact]
    bodies: Mapping[str, Sequence[Body]]
    said: Sequence[Said] = ()
    moments: Sequence[Moment] = ()
    forked_from: Case | None = field(default=None, repr=False)

    def accepted(self, *verbs: str, key: str | None = None) -> list[Said]:
        """What was carried out of these verbs, of one step where one is given."""
        return [each for each in self.said if each.accepted and each.act.verb in verbs and key in (None, each.act.step)]

    def mode_of(self, moment: Moment) -> str:
        """How bodies were stopped: `end`, or the mode of the pause, which is `drain` where a failure paused the run."""
        if moment.state != "paused":
            return "end"
        asked = [
            said for said in self.accepted("pause") if said.by == moment.by and said.act.step in (None, moment.key)
        ]
        modes = [said.act.mode for said in asked if said.asked_at <= moment.at <= said.answered_at]
        return modes[0] if modes else "drain"


def bodies_of(entries: Iterable[Entry], run_id: str) -> dict[str, list[Body]]:
    """The runs of bodies of one run, from its part of the ledger."""
    by_name: dict[str, Body] = {}
    for entry in entries:
        if entry.run_id == run_id:
            if entry.what == "begin":
                begun = entry.value
                by_name[entry.body] = Body(
                    begun["step"], entry.body, entry.attempt, begun["number"], begun["fate"], begun["given"], entry.at
                )
            else:
                _note(by_name[entry.body], entry)
    found: dict[str, list[Body]] = defaultdict(list)
    for body in by_name.values():
        found[body.key].append(body)
    return found


def _note(body: Body, entry: Entry) -> None:
    if entry.what == "found":
        body.looked, body.found = True, entry.value
    elif entry.what == "saved":
        body.saved = True
    elif entry.what == "kill":
        body.ended_at, body.how = entry.at, "kill"
    elif body.how is None or entry.value["how"] == "return":
        body.ended_at, body.how, body.result = entry.at, entry.value["how"], entry.value.get("result")
    else:  # an interruption that came behind the note of the result, before the body was left
        body.ended_at, body.how = entry.at, entry.value["how"]
