"""Draws random plans: the same ones for the same seed. Pure.

What can go wrong is drawn together, or it would hardly meet: steps behind one that fails are likely to say what they do then,
limits are likely to be tight, people are likely to act on what waits, fails or has just begun.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .plans import PEOPLE, Act, Condition, Gate, Plan, StepPlan, item_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["draw"]

T = TypeVar("T")

_LETTERS: Final = "abcdefghij"
_SECONDS: Final = {0.0: 20, 0.02: 20, 0.05: 20, 0.1: 20, 0.3: 14, 0.8: 6}
_LIMIT_S: Final = 2.0  # of a step that outlasts it; much longer than others take, since machines are busy
# Threads cannot be interrupted: there the sweeper ends the attempt, and not before the limit, the grace and a lease are over.
_OUTLASTS_S: Final = {"prefork": 6.0, "threads": 16.0}
_DOOMED: Final = frozenset({"doomed", "hopeless", "deadly", "endless", "discarded", "odd"})
_KINDS: Final = {
    "good": 55,
    "flaky": 9,
    "doomed": 14,
    "hopeless": 3,
    "again": 4,  # Celery's own retries
    "dying": 3,
    "deadly": 1.5,
    "slow": 1.5,  # outlasts its limit once
    "endless": 1.5,  # outlasts it each time
    "discarded": 2,
    "asking": 2,
    "stubborn": 2,
    "odd": 1.5,
    "naive": 0.5,  # Celery's own retries, at a time without a zone
}
_MODES: Final = {"interrupt": 50, "drain": 30, "terminate": 20}
_ODD: Final = {"nul": 3, "declined": 3, "mute": 2, "garbled": 2, "unaskable": 2, "exit": 1}  # what is hard to report


def draw(seed: str, number: int) -> Plan:
    """The plan of that number."""
    return _Draw(seed, number).plan()


class _Draw:
    """One plan in the making."""

    def __init__(self, seed: str, number: int) -> None:
        self._seed, self._number = seed, number
        self._dice = random.Random(f"{seed} plan {number}")  # noqa: S311 - repeatable on purpose
        self._steps: list[StepPlan] = []
        self._failing: set[str] = set()

    def plan(self) -> Plan:
        for place in range(self._dice.choice((2, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9))):
            self._steps.append(self._step(_LETTERS[place]))
        return Plan(
            self._seed,
            self._number,
            tuple(self._steps),
            max_parallel=self._any({None: 45, 1: 30, 2: 15, 3: 10}),
            run_through=self._chance(0.4),
            remote=self._chance(0.3),
            acts=tuple(self._acts()),
        )

    # --- dice

    def _any(self, weights: Mapping[T, float]) -> T:
        (drawn,) = self._dice.choices(list(weights), list(weights.values()))
        return drawn

    def _chance(self, share: float) -> bool:
        return self._dice.random() < share

    def _who(self) -> int:
        return self._dice.randrange(PEOPLE)

    # --- steps

    def _step(self, key: str) -> StepPlan:
        after = self._after()
        kind = self._any({"task": 68, "gate": 14, "asking first": 7, "mapped": 11})
        step = StepPlan(key, after, trigger=self._trigger(after), when=self._condition(after))
        if self._steps and self._chance(0.25):  # beside the one before it: both are ready at once
            twin = self._steps[-1]
            step = replace(step, after=twin.after, trigger=twin.trigger, when=twin.when)
        if kind in ("gate", "asking first"):
            step = replace(step, gate=self._gate())
        if kind == "gate":
            return step
        step = self._mapped(step) if kind == "mapped" else self._task(step)
        if key in self._failing:
            step = replace(step, on_failure=self._any({"continue": 55, "fail": 25, "pause": 20}))
        return replace(step, run_through=self._any({None: 80, True: 12, False: 8}), careful=self._chance(0.35))

    def _after(self) -> tuple[str, ...]:
        earlier = [step.key for step in self._steps]
        gates = [step.key for step in self._steps if step.gate is not None]
        failing = [key for key in earlier if key in self._failing]
        if gates and failing and self._chance(0.5):  # what is done on a failure, while people are still asked
            return tuple(sorted({self._dice.choice(gates), self._dice.choice(failing)}))
        count = min(len(earlier), self._any({0: 14, 1: 46, 2: 30, 3: 10}))
        return tuple(sorted(self._dice.sample(earlier, count)))

    def _trigger(self, after: Sequence[str]) -> Any:
        if not after:
            return "all_completed"
        fails = self._failing.intersection(after)
        return self._any({"all_completed": 30 if fails else 75, "all_settled": 20, "any_failed": 50 if fails else 5})

    def _condition(self, after: Sequence[str]) -> Condition | None:
        if not self._chance(0.15):
            return None
        kind: Any = self._any({"always": 15, "never": 20, "completed": 25, "at_least": 30, "broken": 10})
        if kind in ("always", "never"):
            return Condition(kind)
        if not after:
            return None
        key = self._dice.choice(after)
        seen = next(step for step in self._steps if step.key == key)
        if kind == "at_least" and seen.gate is not None and not seen.works:
            return Condition("approved", key)
        return Condition(kind, key, self._dice.randrange(10))

    def _gate(self) -> Gate:
        deadline_s = self._dice.choice((0.5, 1.5)) if self._chance(0.15) else None
        return Gate(
            deadline_s,
            default=self._any({"approve": 60, "reject": 40}),
            on_reject=self._any({"cancel": 60, "continue": 40}),
        )

    def _task(self, step: StepPlan) -> StepPlan:
        kind = self._any(_KINDS)
        step = self._fated(replace(step, value=self._dice.randrange(10)), kind)
        if kind in _DOOMED:
            self._failing.add(step.key)
        if self._chance(0.15):
            items = tuple(self._item() for _ in range(self._dice.randrange(4)))
            step = replace(step, gives=items)
        return step

    def _fated(self, step: StepPlan, kind: str) -> StepPlan:
        fates, options = self._fates(kind)
        queue = self._any({None: 70, "prefork": 10, "threads": 20})
        if any(fate.startswith("kill") for fate in fates):
            queue = "prefork"
        elif "timeout_s" in options:
            queue = self._any({"prefork": 85, "threads": 15})
            fates = [f"outlast {_OUTLASTS_S[queue]}" if fate == "outlast" else fate for fate in fates]
        return replace(step, fates=tuple(fates), queue=queue, **options)

    def _fates(self, kind: str) -> tuple[list[str], dict[str, Any]]:
        """What each run of the body does, and the options of the step that make it end as it is to."""
        times = self._dice.randrange(1, 3)
        word, words = self._word, self._words
        made: dict[str, Callable[[], tuple[list[str], dict[str, Any]]]] = {
            "flaky": lambda: ([*words("raise", times), word("return")], {"max_attempts": times + 1}),
            # Whoever tries again may have more luck.
            "doomed": lambda: (
                [*words("raise", times), *words("return", self._dice.randrange(2))],
                {"max_attempts": times},
            ),
            "hopeless": lambda: ([word("hopeless"), word("return")], {"max_attempts": 3}),
            "again": lambda: ([*words("retry", times), word("return")], {}),
            "dying": lambda: ([*words("kill", times), word("return")], {}),
            "deadly": lambda: ([word("kill")], {"max_lost": times}),
            "slow": lambda: (["outlast", word("return")], {"timeout_s": _LIMIT_S, "max_attempts": 2}),
            "endless": lambda: (["outlast"], {"timeout_s": _LIMIT_S, "max_attempts": times}),
            "discarded": lambda: ([word(self._dice.choice(("reject", "ignore")))], {"max_attempts": 3}),
            "asking": lambda: ([*words("ask", times), word("return")], {}),
            "stubborn": lambda: (["stubborn 1.0"], {}),
            "odd": lambda: ([word(self._any(_ODD))], {"max_attempts": times}),
            "naive": lambda: ([*words("naive", times), word("return")], {}),
        }
        return made.get(kind, lambda: ([word("return")], {}))()

    def _word(self, word: str) -> str:
        return f"{word} {self._any(_SECONDS)}"

    def _words(self, word: str, times: int) -> list[str]:
        return [self._word(word) for _ in range(times)]

    def _item(self) -> tuple[str, ...]:
        kind = self._any({"good": 80, "flaky": 8, "doomed": 8, "again": 4})
        return tuple(self._fates(kind)[0])

    def _mapped(self, step: StepPlan) -> StepPlan:
        sources = [each for each in self._steps if each.key in step.after and each.gives is not None]
        over = self._dice.choice(sources) if sources else None
        gives = None if over is None else over.gives
        items = gives if gives is not None else tuple(self._item() for _ in range(self._dice.randrange(5)))
        if any(fate.startswith("raise") for fates in items for fate in fates) or (
            over is not None and over.key in self._failing
        ):
            self._failing.add(step.key)
        return replace(
            step,
            items=items,
            over=None if over is None else over.key,
            items_at_once=self._any({None: 60, 1: 20, 2: 20}),
            max_attempts=self._dice.randrange(1, 3),
            queue=self._any({None: 70, "prefork": 10, "threads": 20}),
        )

    # --- people

    def _acts(self) -> Iterator[Act]:
        for step in self._steps:
            if step.gate is not None or any(fate.startswith("ask") for fate in step.fates or ()):
                yield from self._decisions(step)
        for key in self._bodies():
            if key.partition(".")[0] in self._failing and self._chance(0.35):
                yield self._act(self._any({"retry": 60, "settle": 40}), (key, "failed"), key)
        if self._chance(0.3):
            yield from self._pause(None)
        if self._bodies() and self._chance(0.12):
            yield from self._pause(self._dice.choice(self._bodies()))
        if self._chance(0.07):
            yield self._act("cancel", self._event(), None)
        yield from (self._act("rerun", (None, end), None) for end in ("failed", "cancelled") if self._chance(0.35))
        yield from (self._whim() for _ in range(self._any({0: 88, 6: 6, 12: 6})))

    def _decisions(self, step: StepPlan) -> Iterator[Act]:
        """One person, or two at once, at once or when nothing else can move; nobody at times."""
        for _ in range(self._any({0: 10, 1: 70, 2: 20})):
            verb = self._any({"approve": 70, "reject": 30})
            when = self._any({(step.key, "waiting_approval"): 50, (None, "waiting_approval"): 50})
            yield self._act(verb, when, step.key)

    def _pause(self, key: str | None) -> Iterator[Act]:
        """A pause of the run or a step, most often with somebody who resumes it; all three modes."""
        mode = self._any(_MODES)
        when = self._event() if key is None else (key, "running")
        yield replace(self._act("pause", when, key), mode=mode)
        if self._chance(0.7):
            yield self._act("resume", (key, "paused"), key)

    def _whim(self) -> Act:
        """Anything, at any step, at any time: most of it is refused."""
        verb: Any = self._any(dict.fromkeys(("pause", "resume", "approve", "reject", "retry", "settle"), 1))
        keys = [step.key for step in self._steps] + self._bodies()
        alone = verb in ("pause", "resume") and self._chance(0.6)
        act = self._act(verb, self._event(), None if alone else self._dice.choice(keys))
        return replace(act, mode=self._any(_MODES)) if verb == "pause" else act

    def _event(self) -> tuple[str | None, str]:
        step = self._dice.choice(self._steps)
        states = ["running", "completed", "failed", "skipped", "waiting_approval"]
        return step.key, self._dice.choice(states[:2] if step.key not in self._failing else states[:3])

    def _act(self, verb: Any, when: tuple[str | None, str], step: str | None) -> Act:
        return Act(verb, when, step, self._who(), 0.0 if self._chance(0.6) else round(self._dice.uniform(0, 1), 2))

    def _bodies(self) -> list[str]:
        """The keys of everything that has a body."""
        keys: list[str] = []
        for step in self._steps:
            keys += [step.key] if step.items is None else [item_key(step.key, i) for i in range(len(step.items))]
        return [key for key in keys if "." in key or any(s.key == key and s.fates is not None for s in self._steps)]
