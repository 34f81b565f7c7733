"""A step as an author writes it in Python.

It only collects what was written; `Workflow` has the plan validated, all steps at once.
"""

from __future__ import annotations

import json
import re
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Protocol,
    TypeAlias,
    TypedDict,
    Unpack,
    runtime_checkable,
)

from interlock.core.plan.expressions import EXPR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from interlock.core.json_values import Json
    from interlock.core.model.retry import RetryPolicy
    from interlock.core.plan import ApprovalSpec, MapSpec

__all__ = ["Result", "Step", "StepOptions", "as_json"]


@runtime_checkable
class SignatureLike(Protocol):
    """What is read of a Celery Signature."""

    @property
    def task(self) -> str: ...
    @property
    def args(self) -> Sequence[Any]: ...
    @property
    def kwargs(self) -> Mapping[str, Any]: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


@runtime_checkable
class TaskLike(Protocol):
    """What is read of a Celery task."""

    @property
    def name(self) -> str: ...


AnyTask: TypeAlias = str | SignatureLike | TaskLike

_PLAIN_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*|\[-?\d+\])*", re.ASCII)

# Celery's tasks that stand for more than one piece of work
_CANVAS: Final = frozenset(
    f"celery.{name}" for name in ("accumulate", "chain", "chord", "chunks", "group", "map", "starmap")
)


class StepOptions(TypedDict, total=False):
    """Keyword options of `Step`: the fields of `StepSpec` that are not its own parameters."""

    queue: str | None
    priority: int | None
    options: Mapping[str, Json]
    retry: RetryPolicy | Mapping[str, Json]
    timeout_s: float | None
    when: str | Result | None
    approval: ApprovalSpec | Mapping[str, Json] | bool | None
    on_failure: str
    trigger: str
    map: MapSpec | Mapping[str, Json] | str | Result | None
    on_external_revoke: str | None
    run_through: bool | None


class Result:
    """Stands for a part of an earlier step's result, as an argument of a later one.

    `step.result["files"][0]` is written to the plan as `{"$expr": 'results."key"."files"[0]'}`.

    Attributes:
        expression: The JMESPath.
    """

    __slots__ = ("expression",)

    # without this, indexing would make iteration go on for ever
    __iter__: Final = None

    def __init__(self, expression: str) -> None:
        self.expression = expression

    def __getitem__(self, part: str | int) -> Result:
        """The field of that name, or the item of that index (negative: from the end)."""
        if isinstance(part, str):
            return Result(f"{self.expression}.{json.dumps(part)}")
        if type(part) is int:
            return Result(f"{self.expression}[{part}]")
        message = f"a field's name or an index, not {type(part).__name__}: use .path() for the rest"
        raise TypeError(message)

    def path(self, jmespath: str) -> Result:
        """What a JMESPath finds in this part: `step.result.path("items[*].size")`."""
        if _PLAIN_PATH.fullmatch(jmespath):
            return Result(f"{self.expression}.{jmespath}")
        return Result(f"{self.expression} | ({jmespath})")

    def to_dict(self) -> dict[str, str]:
        """The JSON form, `{"$expr": …}`."""
        return {EXPR: self.expression}

    def __repr__(self) -> str:
        return f"Result({self.expression!r})"


class Step:
    """One step of a `Workflow`.

    Args:
        key: Name of the step, unique in its workflow.
        task: A Celery task, its registered name, or a Signature (its arguments come first, its
            options count where the step does not say otherwise); None for a step that is only an
            approval.
        args: Positional arguments: JSON, in which `Result` and `{"$expr": …}` stand for data.
        kwargs: Keyword arguments, likewise.
        after: Steps (or their keys) that must be settled before; one, or several.
        **options: See `StepOptions`, and `StepSpec` for what they mean.

    Attributes:
        key: Name of the step.
    """

    __slots__ = ("_fields", "key")

    def __init__(
        self,
        key: str,
        task: AnyTask | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        after: str | Step | Sequence[str | Step] = (),
        **options: Unpack[StepOptions],
    ) -> None:
        self.key = key
        fields: dict[str, Any] = {**options}
        fields |= _task_fields(task, args, kwargs or {}, fields)
        self._fields = {
            "key": key,
            "after": [_key(item) for item in _several(after)],
            **{name: _field(name, value) for name, value in fields.items()},
        }

    @property
    def result(self) -> Result:
        """Stands for this step's result in the arguments of a later step."""
        return Result(f"results.{json.dumps(self.key)}")

    def to_dict(self) -> dict[str, Any]:
        """The step as a plan has it, not validated yet."""
        return dict(self._fields)

    def __repr__(self) -> str:
        return f"Step({self.key!r}, {self._fields.get('task')!r})"


def as_json(value: object) -> Json:
    """Replace each `Result` inside a value by its JSON form."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return value


def _task_fields(
    task: AnyTask | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """Fields that come from the task: its name and, for a Signature, its arguments and options."""
    if task is None or isinstance(task, str):
        return _without_empty(task=task, args=[*args], kwargs={**kwargs})
    if not isinstance(task, SignatureLike):
        return _without_empty(task=_task_name(task), args=[*args], kwargs={**kwargs})
    if task.task in _CANVAS:
        message = f"{task.task} is more than one task: use Workflow.from_canvas, or a step for each"
        raise TypeError(message)
    options = {**task.options}
    routing = {name: options.pop(name) for name in ("queue", "priority") if name in options}
    return _without_empty(
        task=task.task,
        args=[*task.args, *args],
        kwargs={**task.kwargs, **kwargs},
        options={**options, **given.get("options", {})},
        **{name: value for name, value in routing.items() if name not in given},
    )


def _task_name(task: TaskLike) -> str:
    name = getattr(task, "name", None)
    if isinstance(name, str):
        return name
    message = f"a Celery task, its name or a Signature, not {task!r}: decorate it with @app.task"
    raise TypeError(message)


def _without_empty(**fields: Json) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != {}}


def _field(name: str, value: object) -> Json:
    if isinstance(value, Result) and name in ("when", "map"):
        return value.expression
    return as_json(value)


def _several(after: str | Step | Sequence[str | Step]) -> Sequence[str | Step]:
    return [after] if isinstance(after, str | Step) else after


def _key(item: str | Step) -> str:
    return item.key if isinstance(item, Step) else item
