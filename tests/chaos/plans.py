"""The load: workflows of ten steps in several shapes, made of a seed, and what each step must come to.

Pure: the sums are computed here from the plan, without Interlock, so that a result that came from the wrong input shows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from interlock import RetryPolicy, Step, Workflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["SESSIONS", "STEPS", "Plan", "Treatment", "make_plans", "roll_call"]

SESSIONS = ("north", "south", "west")
STEPS = 10

_TASKS = "tests.chaos.tasks"
# However often its worker dies, the step goes on; bodies that fail on purpose do so twice.
_POLICY = RetryPolicy(max_attempts=5, max_lost=1000, initial_delay_s=0.1, max_delay_s=1.0, jitter=0)
_BRANCHES = 8
_ITEMS = 7
_REFUSALS = 2
_SECONDS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0)
_HOW_OFTEN = (10, 20, 20, 20, 15, 10, 5)
_PAUSED, _CANCELLED = 0.2, 0.03
_ROLL_CALL_S = 0.5


@dataclass(frozen=True, slots=True)
class Treatment:
    """What the operator does to a run by itself.

    Attributes:
        verb: `pause` (and resume), or `cancel`.
        after_s: How long after the enqueue.
        mode: Of the pause.
        hold_s: From the pause to the resume.
    """

    verb: Literal["pause", "cancel"]
    after_s: float
    mode: str = "interrupt"
    hold_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One workflow of the load.

    Attributes:
        number: Which one, from 0.
        shape: The name of its shape.
        session_id: Whose run it will be.
        workflow: The plan itself.
        expected: What each step that is a body comes to, by key.
        treatment: What the operator does to it; None for most.
        remote: Whether it is enqueued over the control queue, without the database.
    """

    number: int
    shape: str
    session_id: str
    workflow: Workflow
    expected: Mapping[str, int]
    treatment: Treatment | None
    remote: bool

    @property
    def name(self) -> str:
        """Its name, which is its idempotency key too."""
        return self.workflow.name


def make_plans(seed: str, count: int) -> list[Plan]:
    """The same plans for the same seed; the first ones are the same for any count."""
    plans = []
    for number in range(count):
        dice = random.Random(f"{seed} plan {number}")  # noqa: S311 - repeatable on purpose
        shape = tuple(_SHAPES)[number % len(_SHAPES)]
        builder = _Builder(dice)
        _SHAPES[shape](builder)
        session_id = dice.choice(SESSIONS)
        remote = dice.random() < 0.5
        treatment = _treatment(dice)
        through = dice.random() < 0.5  # on one message from step to step, where the shape allows it
        about = f"Sums in the shape of a {shape}"
        workflow = Workflow(f"{shape}-{number:05}", about, builder.steps, run_through=through)
        plans.append(Plan(number, shape, session_id, workflow, builder.expected, treatment, remote))
    return plans


def roll_call(number: int, width: int) -> Plan:
    """A fan-out that is wide enough for every worker to get some of it."""
    builder = _Builder(random.Random(number))  # noqa: S311 - any numbers will do
    for place in range(width):
        builder.add(f"here{place}", seconds=_ROLL_CALL_S)
    workflow = Workflow(f"roll-call-{number}", "Is every worker there?", builder.steps)
    return Plan(number, "roll call", SESSIONS[0], workflow, builder.expected, treatment=None, remote=False)


def _treatment(dice: random.Random) -> Treatment | None:
    chance, after_s = dice.random(), dice.uniform(0.1, 3.0)
    if chance < _CANCELLED:
        return Treatment("cancel", after_s)
    if chance < _CANCELLED + _PAUSED:
        return Treatment("pause", after_s, dice.choice(["interrupt", "drain", "terminate"]), dice.uniform(0.2, 5.0))
    return None


class _Builder:
    """Collects steps, and the sum that each must come to."""

    def __init__(self, dice: random.Random) -> None:
        self.steps: list[Step] = []
        self.expected: dict[str, int] = {}
        self._dice = dice

    def add(
        self, key: str, after: Sequence[str] = (), *, task: str = "add", more: Sequence[Any] = (), **options: Any
    ) -> str:
        """A body that adds a number of its own to what the steps before it came to."""
        own = self._dice.randrange(1000)
        numbers = [*({"$expr": f'results."{before}".value'} for before in after), own]
        self.expected[key] = own + sum(self.expected[before] for before in after)
        self._append(key, task, [numbers, *more], after, **options)
        return key

    def gate(self, key: str, after: str) -> str:
        """A step that only asks; it hands on what came before, so that the sums go on."""
        self.steps.append(Step(key, after=[after], approval={"prompt": "go on?"}))
        return key

    def add_behind_gate(self, key: str, gate: str, before: str) -> str:
        """Like `add`; the gate has a decision for a result, so the number comes from the step before it."""
        own = self._dice.randrange(1000)
        self.expected[key] = own + self.expected[before]
        self._append(key, "add", [[{"$expr": f'results."{before}".value'}, own]], [gate, before])
        return key

    def mapped(self, key: str, over: str, count: int) -> str:
        """A body for each item of an earlier step's list."""
        numbers = [{"$expr": "item"}, {"$expr": "index"}]
        for index in range(count):
            self.expected[f"{key}.{index}"] = self.expected[over] + 2 * index
        self._append(key, "add", [numbers], [over], map=f'results."{over}".items')
        return key

    def add_all(self, key: str, mapped: str, count: int) -> str:
        """The sum of a mapped step's items."""
        self.expected[key] = sum(self.expected[f"{mapped}.{index}"] for index in range(count))
        self._append(key, "add", [[{"$expr": f'sum(results."{mapped}"[].value)'}]], [mapped])
        return key

    def _append(self, key: str, task: str, args: list[Any], after: Sequence[str], **options: Any) -> None:
        (drawn,) = self._dice.choices(_SECONDS, _HOW_OFTEN)
        seconds = options.pop("seconds", drawn)
        step = Step(key, f"{_TASKS}.{task}", [*args, seconds], after=list(after), retry=_POLICY, **options)
        self.steps.append(step)


def _chain(builder: _Builder) -> None:
    last = builder.add("s0")
    for number in range(1, STEPS):
        last = builder.add(f"s{number}", [last])


def _fan(builder: _Builder) -> None:
    root = builder.add("root")
    branches = [builder.add(f"branch{number}", [root]) for number in range(_BRANCHES)]
    builder.add("join", branches)


def _retrying(builder: _Builder) -> None:
    last = builder.add("s0")
    for number in range(1, STEPS):
        task = {3: "reluctant", 6: "persistent"}.get(number, "add")
        more = [_REFUSALS] if task != "add" else []
        last = builder.add(f"s{number}", [last], task=task, more=more)


def _approval(builder: _Builder) -> None:
    last = builder.add("s0")
    for number in range(1, 4):
        last = builder.add(f"s{number}", [last])
    gate = builder.gate("gate", last)
    last = builder.add_behind_gate("s5", gate, last)
    asked = [builder.add(f"asked{number}", [last], approval={"prompt": "this one?"}) for number in range(3)]
    builder.add("join", asked)


def _mapping(builder: _Builder) -> None:
    """One step, its list of seven, and their sum: with the mapped step itself ten rows."""
    root = builder.add("root", task="spread", more=[_ITEMS])
    mapped = builder.mapped("each", root, _ITEMS)
    builder.add_all("join", mapped, _ITEMS)


_SHAPES = {"chain": _chain, "fan": _fan, "retrying": _retrying, "approval": _approval, "mapping": _mapping}
