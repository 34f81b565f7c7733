"""A random plan as data: its steps, what each run of a body does, and what people do to the run. Pure; `generator` draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from interlock import RetryPolicy, Step, Workflow

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BODY", "DELAY_S", "PEOPLE", "Act", "Condition", "Gate", "Plan", "StepPlan", "Verb", "fate_of", "item_key"]

BODY: Final = "tests.random_plans.tasks.body"
DELAY_S: Final = 0.1
"""Between the attempts of every step."""
PEOPLE: Final = 4
"""How many people there are; `people` says who works with the database and who over the control queue."""

Verb = Literal["pause", "resume", "cancel", "approve", "reject", "retry", "settle", "rerun"]


@dataclass(frozen=True, slots=True)
class Condition:
    """The `when` of a step.

    Attributes:
        kind: `always`, `never`, `completed` (the step `key` has), `at_least` (its value), `approved` (the gate `key` was), or
            `broken`: an expression that cannot be evaluated.
        key: The step that is looked at.
        least: With `at_least`, from which value on.
    """

    kind: Literal["always", "never", "completed", "at_least", "approved", "broken"]
    key: str = ""
    least: int = 0

    @property
    def expression(self) -> str:
        """The JMESPath."""
        return {
            "always": "`true`",
            "never": "`false`",
            "completed": f"states.\"{self.key}\" == 'completed'",
            "at_least": f'results."{self.key}".value >= `{self.least}`',
            "approved": f'results."{self.key}".approved',
            "broken": f'abs(results."{self.key}")',
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Gate:
    """What a step asks before it begins."""

    deadline_s: float | None = None
    default: Literal["approve", "reject"] = "reject"
    on_reject: Literal["cancel", "continue"] = "cancel"


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step.

    Attributes:
        key: Its name.
        after: The steps that it waits for.
        fates: What each run of its body does, "word seconds" (see `tasks`); the last one for all further runs. None for a gate.
        items: Of a mapped step: the fates of each item's body. They come from the input, or from the result of `over`.
        over: The step whose result has the items.
        gives: The items that its result has, for a mapped step behind it.
        items_at_once: The `max_parallel` of the map.
        gate: What it asks.
        when: Its condition.
        trigger: How the steps before it must have ended.
        on_failure: What its failure does to the run.
        max_attempts: Of its retry policy.
        max_lost: Of its retry policy.
        timeout_s: How long an attempt may take.
        queue: `prefork` or `threads` for a worker of that pool alone; None for any.
        run_through: Whether a process may come to it without a message; None: as the plan says.
        careful: Whether its body stores checkpoints, and asks whether to stop.
        value: What its result says, for conditions.
    """

    key: str
    after: tuple[str, ...] = ()
    fates: tuple[str, ...] | None = None
    items: tuple[tuple[str, ...], ...] | None = None
    over: str | None = None
    gives: tuple[tuple[str, ...], ...] | None = None
    items_at_once: int | None = None
    gate: Gate | None = None
    when: Condition | None = None
    trigger: Literal["all_completed", "all_settled", "any_failed"] = "all_completed"
    on_failure: Literal["fail", "continue", "pause"] = "fail"
    max_attempts: int = 1
    max_lost: int = 3
    timeout_s: float | None = None
    queue: str | None = None
    run_through: bool | None = None
    careful: bool = False
    value: int = 0

    @property
    def works(self) -> bool:
        """Whether it has a body, or its items have one."""
        return self.fates is not None or self.items is not None

    def step(self) -> Step:
        """The step as an author would write it."""
        options: dict[str, Any] = {
            "queue": self.queue,
            "timeout_s": self.timeout_s,
            "when": None if self.when is None else self.when.expression,
            "approval": None if self.gate is None else _approval(self.gate),
            "run_through": self.run_through,
            "map": self._map() if self.items is not None else None,
        }
        options = {name: value for name, value in options.items() if value is not None}
        options |= {"trigger": self.trigger, "on_failure": self.on_failure}
        if not self.works:
            return Step(self.key, after=self.after, **options)
        policy = RetryPolicy(
            max_attempts=self.max_attempts,
            max_lost=self.max_lost,
            initial_delay_s=DELAY_S,
            multiplier=1,
            jitter=0,
            non_retryable=("Hopeless", "Declined"),
        )
        return Step(self.key, BODY, kwargs=self._arguments(), after=self.after, retry=policy, **options)

    def _map(self) -> Mapping[str, Any]:
        over = f'results."{self.over}".items' if self.over is not None else f'input.items."{self.key}"'
        return {"over": over, **({} if self.items_at_once is None else {"max_parallel": self.items_at_once})}

    def _arguments(self) -> dict[str, Any]:
        mapped = self.items is not None
        more = {
            "careful": self.careful or None,
            "gives": None if self.gives is None else [list(fates) for fates in self.gives],
        }
        return {
            "family": {"$expr": "input.family"},
            "fates": {"$expr": "item"} if mapped else list(self.fates or ()),
            "value": {"$expr": "index"} if mapped else self.value,
            "given": {key: {"$expr": f'results."{key}"'} for key in self.after},
            **{name: value for name, value in more.items() if value is not None},
        }


@dataclass(frozen=True, slots=True)
class Act:
    """What a person does, once, when something has happened.

    Attributes:
        verb: What.
        when: What has happened: a step's key, or None for the run, and the state that it has come to.
        step: The step that the verb is about; None for the run.
        who: Which person.
        after_s: How long that person waits.
        mode: Of a pause.
    """

    verb: Verb
    when: tuple[str | None, str]
    step: str | None = None
    who: int = 0
    after_s: float = 0.0
    mode: str = "interrupt"


@dataclass(frozen=True, slots=True)
class Plan:
    """One random plan.

    Attributes:
        seed: Of the run of this suite.
        number: Which plan of it.
        steps: In order; each waits only for earlier ones.
        max_parallel: Of the workflow.
        run_through: Of the workflow.
        remote: Whether it is enqueued over the control queue.
        acts: What people do to each of its runs.
    """

    seed: str
    number: int
    steps: tuple[StepPlan, ...]
    max_parallel: int | None = None
    run_through: bool = False
    remote: bool = False
    acts: tuple[Act, ...] = ()

    @property
    def workflow(self) -> Workflow:
        """The workflow, as its author would write it."""
        return Workflow(
            f"plan-{self.number}",
            f"Plan {self.number} of seed {self.seed}",
            [step.step() for step in self.steps],
            max_parallel=self.max_parallel,
            run_through=self.run_through,
        )

    @property
    def by_key(self) -> dict[str, StepPlan]:
        """Its steps by key, those of the plan alone: items of mapped steps are not there."""
        return {step.key: step for step in self.steps}

    def input(self, family: str) -> dict[str, Any]:
        """The input of a run: a name that it shares with its reruns, and the lists of its mapped steps."""
        items = {step.key: [list(fates) for fates in step.items] for step in self.steps if step.items is not None}
        return {"family": family, "items": items}

    def owner(self, key: str) -> StepPlan | None:
        """The step of the plan that a key belongs to, also that of an item (`key.0`); None where it belongs to none."""
        steps = self.by_key
        return steps.get(key) or steps.get(key.rpartition(".")[0])

    def fates(self, key: str) -> tuple[str, ...]:
        """What the runs of the body of a step, or of an item, do."""
        step = self.owner(key)
        if step is None or step.key == key:
            return () if step is None else step.fates or ()
        index = int(key.rpartition(".")[2])
        return (step.items or ())[index] if index < len(step.items or ()) else ()


def fate_of(fates: tuple[str, ...] | list[str], number: int) -> tuple[str, float]:
    """What the run `number` (from 0) of a body does, and how long it takes."""
    word, seconds = fates[min(number, len(fates) - 1)].split()
    return word, float(seconds)


def item_key(key: str, index: int) -> str:
    """The key of an item of a mapped step."""
    return f"{key}.{index}"


def _approval(gate: Gate) -> dict[str, Any]:
    deadline = {} if gate.deadline_s is None else {"deadline_s": gate.deadline_s}
    return {"prompt": "go on?", "default": gate.default, "on_reject": gate.on_reject, **deadline}
