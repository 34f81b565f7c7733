"""Validates a plan as a whole, and reports every fault at once.

Linear in the size of the plan: 10,000 steps with 20,000 edges take well under a second or two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from interlock.core.errors import InvalidPlan
from interlock.core.json_values import json_size

from .expressions import ALL, read_expression
from .faults import Fault, Suggestions, faults_of
from .graph import Ancestors, find_cycles
from .models import PlanSpec, StepSpec, Trigger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.json_values import JsonPath

__all__ = ["PlanLimits", "examine_plan", "validate_plan"]

_SHOWN_OF_A_CYCLE: Final = 20


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """How large a plan may be.

    Attributes:
        max_steps: Steps of one plan.
        max_args_bytes: Bytes of the JSON text of one step's args and kwargs together.
    """

    max_steps: int = 10_000
    max_args_bytes: int = 256 * 1024


DEFAULT_LIMITS: Final = PlanLimits()

# In place of a field that could not be read, where without it a sound field would look wrong.
_STAND_INS: Final = {"key": "key", "task": "?", "map": "input", "approval": True}


def validate_plan(
    obj: object,
    *,
    limits: PlanLimits = DEFAULT_LIMITS,
    known_tasks: Collection[str] | None = None,
) -> PlanSpec:
    """Read a plan and make sure that it can be run.

    Args:
        obj: A `PlanSpec`, a mapping with `steps`, or a list of steps.
        limits: How large it may be.
        known_tasks: Names of the tasks that workers know; None if that is not known here.

    Raises:
        InvalidPlan: It cannot; every fault is listed, each with the field it is in.
    """
    plan, faults = examine_plan(obj, limits=limits, known_tasks=known_tasks)
    if plan is None:
        raise InvalidPlan([str(fault) for fault in faults])
    return plan


def examine_plan(
    obj: object,
    *,
    limits: PlanLimits = DEFAULT_LIMITS,
    known_tasks: Collection[str] | None = None,
) -> tuple[PlanSpec | None, tuple[Fault, ...]]:
    """As `validate_plan`, but without raising: a plan and no faults, or no plan and its faults."""
    document = _document(obj)
    head: Mapping[str, object] = document if isinstance(document, Mapping) else {}
    raw = head.get("steps")
    if not isinstance(raw, list | tuple):
        return None, _read_whole(document)[1]
    if not 0 < len(raw) <= limits.max_steps:
        count = f"{len(raw):,} steps, over the limit of {limits.max_steps:,}" if raw else "is empty"
        return None, (Fault(("steps",), count),)
    steps, faults = _read_steps(raw)
    examiner = _Examiner(raw, steps, limits, known_tasks)
    empty, head_faults = _read_whole({**head, "steps": ()})
    faults = [*head_faults, *faults, *examiner.faults()]
    if empty is None or faults:
        return None, tuple(sorted(faults, key=_position))
    # the steps are sound: reading them again inside the plan would double the time
    return empty.model_copy(update={"steps": tuple(step for step in steps if step)}), ()


def _position(fault: Fault) -> int:
    index = fault.path[1] if len(fault.path) > 1 else None
    return index if fault.path[0] == "steps" and isinstance(index, int) else -1


def _document(obj: object) -> object:
    if isinstance(obj, PlanSpec):
        return {name: getattr(obj, name) for name in PlanSpec.model_fields}
    return {"steps": obj} if isinstance(obj, list | tuple) else obj


def _read_whole(document: object) -> tuple[PlanSpec | None, tuple[Fault, ...]]:
    try:
        return PlanSpec.model_validate(document), ()
    except ValidationError as error:
        return None, faults_of(error, PlanSpec)


def _read_steps(raw: Sequence[object]) -> tuple[list[StepSpec | None], list[Fault]]:
    """Read each step by itself, so that a broken one does not hide faults of the others."""
    steps: list[StepSpec | None] = []
    faults: list[Fault] = []
    for index, item in enumerate(raw):
        step, found = _read_step(item)
        steps.append(step)
        faults += [Fault(("steps", index, *fault.path), fault.message) for fault in found]
    return steps, faults


def _read_step(item: object) -> tuple[StepSpec | None, list[Fault]]:
    """Read a step; one with faults again without its wrong fields, so that the rest is examined."""
    if isinstance(item, StepSpec):
        return item, []  # it has been read, and cannot change
    faults: list[Fault] = []
    left: object = item
    while True:
        try:
            step = StepSpec.model_validate(left)
        except ValidationError as error:
            found = faults_of(error, StepSpec)
        else:
            key = item["key"] if isinstance(item, Mapping) else step.key
            return (step.model_copy(update={"key": key}) if faults else step), faults
        faults += found
        if not isinstance(left, Mapping) or not isinstance(left.get("key"), str):
            return None, faults
        repaired = _without({fault.path[0] for fault in found if fault.path}, left)
        if repaired == left:
            return None, faults
        left = repaired


def _without(wrong: set[str | int], step: Mapping[str, object]) -> dict[str, object]:
    if "timeout_s" in wrong:
        wrong = wrong | {"timeout"}
    sound = {name: value for name, value in step.items() if name not in wrong}
    return sound | {name: value for name, value in _STAND_INS.items() if name in wrong}


@dataclass(slots=True)
class _Examiner:
    """Looks across the steps. A step that could not be read takes part with its key and `after`."""

    raw: Sequence[object]
    steps: list[StepSpec | None]
    limits: PlanLimits
    known_tasks: Collection[str] | None
    suggestions: Suggestions = field(default_factory=Suggestions)
    keys: list[str] = field(default_factory=list)
    index_of: dict[str, int] = field(default_factory=dict)
    graph: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def faults(self) -> Iterator[Fault]:
        yield from self._draw_graph()
        self.keys = list(self.graph)
        cycles = find_cycles(self.graph)
        for cycle in cycles:
            path = ("steps", self.index_of[cycle[0]], "after")
            yield Fault(path, f"cycle: {_printed(cycle)} (an arrow leads to the step that waits)")
        ancestors = None if cycles else Ancestors(self.graph)
        for index, step in enumerate(self.steps):
            if step is not None:
                yield from self._step_faults(step, ("steps", index), ancestors)

    def _draw_graph(self) -> Iterator[Fault]:
        for index, (item, step) in enumerate(zip(self.raw, self.steps, strict=True)):
            key, after = (step.key, step.after) if step is not None else _lenient(item)
            if key is None:
                continue
            if key in self.index_of:
                first = self.index_of[key]
                yield Fault(("steps", index, "key"), f'"{key}" is already the key of steps[{first}]')
            else:
                self.index_of[key], self.graph[key] = index, after

    def _step_faults(self, step: StepSpec, path: JsonPath, ancestors: Ancestors | None) -> Iterator[Fault]:
        yield from self._after_faults(step, path)
        yield from self._task_faults(step, path)
        yield from self._size_faults(step, path)
        yield from self._child_key_faults(step, path)
        for below, text in step.expressions():
            for name in sorted(read_expression(text).steps - {ALL}):
                if message := self._reading_fault(step.key, name, ancestors):
                    yield Fault((*path, *below), message)

    def _after_faults(self, step: StepSpec, path: JsonPath) -> Iterator[Fault]:
        seen = set()
        for name in step.after:
            if name in seen:
                yield Fault((*path, "after"), f'"{name}" is there twice')
            elif name not in self.graph:
                yield Fault((*path, "after"), self._unknown_step(name))
            seen.add(name)
        if step.trigger is Trigger.ANY_FAILED and not step.after:
            yield Fault((*path, "trigger"), "any_failed can never hold without a step in `after`")

    def _task_faults(self, step: StepSpec, path: JsonPath) -> Iterator[Fault]:
        known = self.known_tasks
        if known is None or step.task is None or step.task in known:
            return
        hint = self.suggestions.did_you_mean(step.task, tuple(known))
        if step.task != _STAND_INS["task"]:
            yield Fault((*path, "task"), f'unknown task "{step.task}"{hint}')

    def _size_faults(self, step: StepSpec, path: JsonPath) -> Iterator[Fault]:
        if not step.args and not step.kwargs:
            return
        size, limit = json_size([step.args, step.kwargs]), self.limits.max_args_bytes
        if size > limit:
            yield Fault(
                (*path, "args"),
                f"args and kwargs are {size:,} bytes of JSON, over the limit of {limit:,}: "
                "keep large data elsewhere and pass a reference",
            )

    def _child_key_faults(self, step: StepSpec, path: JsonPath) -> Iterator[Fault]:
        parent, _, number = step.key.rpartition(".")
        if not (parent in self.index_of and number.isascii() and number.isdigit()):
            return
        owner = self.steps[self.index_of[parent]]
        if owner is not None and owner.map is not None:
            yield Fault((*path, "key"), f'"{step.key}" is the key of an item of the mapped "{parent}"')

    def _reading_fault(self, key: str, name: str, ancestors: Ancestors | None) -> str | None:
        if name not in self.graph:
            return self._unknown_step(name)
        if ancestors is None or ancestors.has(key, name):
            return None
        if name == key:
            return "reads the step's own result"
        return f'reads step "{name}", which need not have run before: add "{name}" to `after`'

    def _unknown_step(self, name: str) -> str:
        return f'unknown step "{name}"{self.suggestions.did_you_mean(name, self.keys)}'


def _lenient(item: object) -> tuple[str | None, tuple[str, ...]]:
    """Key and `after` of a step that is wrong elsewhere, as far as they can be made out."""
    if not isinstance(item, Mapping):
        return None, ()
    key, after = item.get("key"), item.get("after", ())
    names = [after] if isinstance(after, str) else after if isinstance(after, list | tuple) else []
    return (
        key if isinstance(key, str) else None,
        tuple(name for name in names if isinstance(name, str)),
    )


def _printed(cycle: tuple[str, ...]) -> str:
    if len(cycle) <= _SHOWN_OF_A_CYCLE:
        return " → ".join(cycle)
    half = _SHOWN_OF_A_CYCLE // 2
    left_out = len(cycle) - _SHOWN_OF_A_CYCLE
    return " → ".join([*cycle[:half], f"({left_out:,} more)", *cycle[-half:]])
