"""A search through every state that a run can reach in its small world, breadth first.

The first state, event or move that breaks an invariant ends it, with the shortest sequence of events that leads there. Then the
graph is walked backwards from the ends, along what is due alone: a state that this does not reach is one from which the run
cannot end though every worker, timer and person does what it is waited for to do.
"""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interlock.core.model.transitions import WORKFLOW_TABLE

from .events import events_of
from .flow import IllegalMove
from .invariants import faults, faults_of_a_move
from .run import Run
from .world import Happening, Violation, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .events import Event
    from .plans import Plan
    from .situation import State

__all__ = ["Counterexample", "Found", "search"]

_CHANGED = "what is said of an attempt that no longer counts has changed something"
_NOT_SENT = "  … and dies before it sends what follows"


@dataclass(frozen=True, slots=True)
class Counterexample:
    """How a run gets into trouble.

    Attributes:
        fault: What is wrong.
        events: The shortest sequence of events that leads there.
        state: Where the run stands before the last of them, or after it where it is the state that is wrong.
    """

    fault: str
    events: tuple[str, ...]
    state: str

    def __str__(self) -> str:
        events = [f"{number:>3}. {event}" for number, event in enumerate(self.events, start=1)]
        return "\n".join([f"violated: {self.fault}", *events, self.state])


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found.

    Attributes:
        states: How many states can be reached.
        transitions: How many events lead from one of them to another.
        seconds: How long it took.
        counterexample: What is wrong; None where nothing is.
    """

    states: int
    transitions: int
    seconds: float
    counterexample: Counterexample | None


class _Search:
    """The graph as far as it is known. States are numbered in the order in which they were found."""

    def __init__(self, plan: Plan, rules: type[Run]) -> None:
        self.plan = plan
        self.rules = rules
        self.events = events_of(plan)
        self.numbers: dict[tuple[int, ...], int] = {}
        self.states: list[tuple[int, ...]] = []
        self.parents = array("q")
        self.causes = array("q")  # twice the event's place, and 1 more where what it sends was lost
        self.due_from, self.due_to = array("q"), array("q")
        self.ended: list[int] = []
        self.transitions = 0
        self._parts: dict[tuple[object, ...], int] = {}
        self._part_list: list[tuple[object, ...]] = []

    # --- states by number --------------------------------------------------------------------------------------------

    def _packed(self, state: State) -> tuple[int, ...]:
        """The state as numbers of its parts, of which there are few: a million states fit into memory."""
        packed = []
        for part in state:
            number = self._parts.setdefault(part, len(self._part_list))
            if number == len(self._part_list):
                self._part_list.append(part)
            packed.append(number)
        return tuple(packed)

    def state(self, number: int) -> State:
        """The state of that number."""
        return tuple(self._part_list[part] for part in self.states[number])

    def world(self, number: int) -> World:
        """A world in the state of that number."""
        return World.of(self.state(number), self.plan, self.rules)

    # --- the search --------------------------------------------------------------------------------------------------

    def run(self) -> Counterexample | None:
        """Search, and return what is wrong."""
        try:
            begin = World(self.rules(self.plan))
        except IllegalMove as fault:
            return Counterexample(str(fault), (), "before the run has begun")
        self._reach(begin.frozen(), -1, 0)
        found = next(faults(begin.run), None)
        if found:
            return self._explain(found, 0)
        number = 0
        while number < len(self.states):
            wrong = self._expand(number)
            if wrong is not None:
                return wrong
            number += 1
        return self._stranded()

    def _expand(self, number: int) -> Counterexample | None:
        """Let everything happen that may happen in a state."""
        state = self.state(number)
        world = World.of(state, self.plan, self.rules)
        if world.frozen() != state:  # then what is searched would not be what is counted
            raise AssertionError(state)
        for place, event in enumerate(self.events):
            try:
                happening = event.act(world)
            except (Violation, IllegalMove) as fault:
                return self._explain(str(fault), number, event)
            if happening is Happening.IMPOSSIBLE:
                continue
            wrong = next(faults_of_a_move(world.was, world.waiting, world.run), None)
            if wrong is not None:
                return self._explain(wrong, number, event)
            known = len(self.states)
            changed = self._note(number, state, world, place, happening)
            if changed and event.harmless:
                return self._explain(_CHANGED, number, event)
            if len(self.states) > known:
                wrong = next(faults(world.run), None)
                if wrong is not None:
                    return self._explain(wrong, len(self.states) - 1)
            if changed:
                world = World.of(state, self.plan, self.rules)
            else:
                world.run.forget()
        return None

    def _note(self, number: int, state: State, world: World, place: int, happening: Happening) -> bool:
        """Note where an event leads, with what it sends and without; False where it has changed nothing."""
        world.supersede()
        after = world.frozen()
        if world.run.sent:
            self._follow(number, after, 2 * place + 1, Happening.FREE)
            world.publish()
            after = world.frozen()
        if after == state:
            return False
        self._follow(number, after, 2 * place, happening)
        return True

    def _follow(self, number: int, after: State, cause: int, happening: Happening) -> None:
        self.transitions += 1
        target = self._reach(after, number, cause)
        if happening is Happening.DUE:
            self.due_from.append(number)
            self.due_to.append(target)

    def _reach(self, state: State, parent: int, cause: int) -> int:
        packed = self._packed(state)
        number = self.numbers.setdefault(packed, len(self.states))
        if number == len(self.states):
            self.states.append(packed)
            self.parents.append(parent)
            self.causes.append(cause)
            if WORKFLOW_TABLE.is_terminal(state[0][0]):
                self.ended.append(number)
        return number

    # --- can every run still end? ------------------------------------------------------------------------------------

    def _stranded(self) -> Counterexample | None:
        """The first state from which no path of what is due leads to an end."""
        before: list[list[int]] = [[] for _ in self.states]
        for source, target in zip(self.due_from, self.due_to, strict=True):
            before[target].append(source)
        ends = bytearray(len(self.states))
        waiting = list(self.ended)
        for number in waiting:
            ends[number] = 1
        while waiting:
            for source in before[waiting.pop()]:
                if not ends[source]:
                    ends[source] = 1
                    waiting.append(source)
        stranded = ends.find(0)
        return None if stranded < 0 else self._explain("the run can never end from here", stranded)

    # --- words -------------------------------------------------------------------------------------------------------

    def _explain(self, fault: str, number: int, last: Event | None = None) -> Counterexample:
        events = [*self._path(number), *([last.text] if last is not None else [])]
        return Counterexample(fault, tuple(events), describe(self.world(number)))

    def _path(self, number: int) -> list[str]:
        texts = []
        while number > 0:
            place, lost = divmod(self.causes[number], 2)
            texts.append(self.events[place].text + (_NOT_SENT if lost else ""))
            number = self.parents[number]
        return texts[::-1]


def describe(world: World) -> str:
    """A state in words: the run, then each step."""
    return "\n".join([f"  the run is {world.run.state}", *_steps_in_words(world)])


def _steps_in_words(world: World) -> Iterator[str]:
    for key, step in world.run.steps.items():
        words = [f"  {key} is {step.state}"]
        for name, token in (("held", step.claim), ("drained", step.drain)):
            if token is not None:
                words.append(f"{name} by {'a live' if (key, token) in world.alive else 'a dead'} worker")
        words += ["a message is on its way"] if key in world.flying else []
        words += ["a message is due"] if step.send_due else []
        words += ["a retry is due"] if step.retry_due else []
        words += [f"kept: {step.late}"] if step.late else []
        words += ["paused by itself"] if step.own_pause else []
        words += [f"its question is {step.request}"] if step.request else []
        yield ", ".join(words)


def search(plan: Plan, rules: type[Run] = Run) -> Found:
    """Look at everything that can happen to a run of `plan` under `rules`."""
    began = time.perf_counter()
    work = _Search(plan, rules)
    wrong = work.run()
    return Found(len(work.states), work.transitions, time.perf_counter() - began, wrong)
