"""Celery's canvas as steps, where there is an equivalent, and the reason where there is none.

Read from the canvas objects as the mappings that they are, so that one that went through JSON
works as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from interlock.core.errors import InvalidPlan
from interlock.core.plan import Fault
from interlock.core.plan.expressions import EXPR, LITERAL

from .step import Step

if TYPE_CHECKING:
    from interlock.core.json_values import Json, JsonPath

__all__ = ["steps_of"]

_REFUSED: Final = {
    "celery.map": "it runs all items in one message: use a step with `map`",
    "celery.starmap": "it runs all items in one message: use a step with `map`",
    "celery.chunks": "it runs many items in one message: use a step with `map`, or one per chunk",
    "celery.accumulate": "it is a helper of Celery's own",
}


def steps_of(canvas: object) -> list[Step]:
    """The steps that do what a chain, group, chord or Signature does.

    Raises:
        InvalidPlan: Parts of it have no equivalent; each is named with the reason.
    """
    writer = _Writer()
    writer.write(canvas, _Before(), ("canvas",))
    if writer.faults:
        raise InvalidPlan([str(fault) for fault in writer.faults])
    return writer.steps


@dataclass(frozen=True, slots=True)
class _Before:
    """What a part of the canvas comes after.

    Attributes:
        steps: Steps to wait for.
        value: Their result, as an argument; None at the beginning, where there is none.
    """

    steps: tuple[Step, ...] = ()
    value: Json = None


@dataclass(slots=True)
class _Writer:
    steps: list[Step] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def write(self, part: object, before: _Before, path: JsonPath) -> _Before:
        """Write the steps of a part, and return what comes after it as its `before`."""
        if not isinstance(part, Mapping) or not isinstance(part.get("task"), str):
            return self._refuse(path, f"{type(part).__name__} is not a Signature: call .s() or .si()")
        kind = part.get("subtask_type")
        if reason := self._reason_against(part, kind):
            return self._refuse(path, reason)
        if kind == "chain":
            return self._chain(part["kwargs"]["tasks"], before, (*path, "chain"))
        if kind == "group":
            return self._group(part["kwargs"]["tasks"], before, (*path, "group"))
        if kind == "chord":
            header = self._header(part["kwargs"]["header"], before, (*path, "chord"))
            return self.write(part["kwargs"]["body"], header, (*path, "chord", "body"))
        return self._task(part, before)

    def _reason_against(self, part: Mapping[str, Any], kind: object) -> str | None:
        task, options = part["task"], part.get("options") or {}
        if task in _REFUSED:
            return f"{task} has no equivalent: {_REFUSED[task]}"
        for name in ("link", "link_error"):
            if options.get(name):
                return f"{name} has no equivalent: add a step that comes after (see `trigger`)"
        if kind in ("chain", "group", "chord") and options:
            return f"options of a {kind} ({', '.join(options)}) have no equivalent: set them per task"
        if kind == "chord" and part["kwargs"].get("kwargs"):
            return "keyword arguments of a chord have no equivalent: give them to its tasks"
        if kind not in (None, "chain", "group", "chord"):
            return f"a {kind} has no equivalent"
        return None

    def _chain(self, parts: Sequence[object], before: _Before, path: JsonPath) -> _Before:
        for index, part in enumerate(parts):
            before = self.write(part, before, (*path, index))
        return before if parts else self._refuse(path, "is empty")

    def _group(self, parts: Sequence[object], before: _Before, path: JsonPath) -> _Before:
        if not parts:
            return self._refuse(path, "is empty")
        ends = [self.write(part, before, (*path, index)) for index, part in enumerate(parts)]
        steps = tuple(step for end in ends for step in end.steps)
        return _Before(steps, [end.value for end in ends])

    def _header(self, header: object, before: _Before, path: JsonPath) -> _Before:
        if isinstance(header, Mapping) and header.get("subtask_type") == "group":
            return self.write(header, before, (*path, "header"))
        parts = [*header] if isinstance(header, list | tuple) else [header]
        return self._group(parts, before, (*path, "header"))

    def _task(self, part: Mapping[str, Any], before: _Before) -> _Before:
        args = [_literal(value) for value in part.get("args") or ()]
        if before.steps and not part.get("immutable"):
            args.insert(0, before.value)
        options = {**(part.get("options") or {})}
        routing = {name: options.pop(name) for name in ("queue", "priority") if name in options}
        step = Step(
            self._new_key(part["task"]),
            part["task"],
            args,
            {name: _literal(value) for name, value in (part.get("kwargs") or {}).items()},
            after=before.steps,
            options=options,
            **routing,
        )
        self.steps.append(step)
        return _Before((step,), step.result)

    def _new_key(self, task: str) -> str:
        stem = re.sub(r"[^A-Za-z0-9_-]", "_", task.rpartition(".")[2])[:180] or "task"
        key, number = stem, 1
        while key in self.keys:
            number += 1
            key = f"{stem}-{number}"
        self.keys.add(key)
        return key

    def _refuse(self, path: JsonPath, message: str) -> _Before:
        self.faults.append(Fault(path, message))
        return _Before()


def _literal(value: Any) -> Json:
    """Keep an argument what it is: canvas knows no expressions, so what looks like one is data."""
    return {LITERAL: value} if _has_marker(value) else value


def _has_marker(value: object) -> bool:
    if isinstance(value, Mapping):
        return EXPR in value or LITERAL in value or any(map(_has_marker, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_marker, value))
