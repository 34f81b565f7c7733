"""The description of a workflow as data: what authors write, what is stored, what the engine reads.

`model_dump(mode="json", exclude_defaults=True)` of these models is the stored form, and reading it
back gives an equal object. A model checks what can be seen inside one step; what concerns several
steps (dependencies, cycles, limits) is in `validation`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from interlock.core.errors import InvalidPlan
from interlock.core.model.retry import RetryPolicy

from .expressions import EXPR, embedded, read_expression, references
from .faults import faults_of, refuse
from .fields import (
    Count,
    Expression,
    JsonList,
    JsonObject,
    Key,
    Keys,
    Prose,
    Routing,
    Seconds,
    Text,
    Texts,
    empty_for_true,
    over_for_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.json_values import Json, JsonPath, Problem

__all__ = [
    "ApprovalSpec",
    "Decision",
    "MapSpec",
    "OnExternalRevoke",
    "OnFailure",
    "OnReject",
    "PlanSpec",
    "StepSpec",
    "Trigger",
]

_MAX_MAPPED_KEY: Final = 190
_PER_ITEM: Final = frozenset({"item", "index"})


class OnFailure(StrEnum):
    """What a step's final failure does to its workflow."""

    FAIL = "fail"
    CONTINUE = "continue"
    PAUSE = "pause"


class Trigger(StrEnum):
    """How the steps that it waits for must have ended for a step to start.

    `ALL_COMPLETED` and `ALL_SETTLED` wait for all of them, `ANY_FAILED` only for the first failure. A step whose trigger
    can no longer hold is skipped at once.
    """

    ALL_COMPLETED = "all_completed"
    ALL_SETTLED = "all_settled"
    ANY_FAILED = "any_failed"


class OnExternalRevoke(StrEnum):
    """What a revoke that is not Interlock's (`celery control revoke`, Flower) does to a step."""

    CANCEL = "cancel"
    PAUSE = "pause"
    REDISPATCH = "redispatch"


class Decision(StrEnum):
    """How an approval is decided when its deadline passes."""

    APPROVE = "approve"
    REJECT = "reject"


class OnReject(StrEnum):
    """What a rejection does: cancel the workflow, or go on with the decision as the result."""

    CANCEL = "cancel"
    CONTINUE = "continue"


class _Spec(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
    )


class ApprovalSpec(_Spec):
    """A person decides before the step goes on; a step without a task is only this decision."""

    approvers: Texts = ()
    """Names of those who may decide; empty: anyone who may send commands."""

    guard: Text | None = None
    """Name of a guard that says whether an actor may decide."""

    deadline_s: Seconds | None = None
    """Seconds after which `default` is decided; none: it waits for ever."""

    default: Decision = Decision.REJECT
    """What is decided when the deadline passes."""

    on_reject: OnReject = OnReject.CANCEL
    """Whether a rejection cancels the workflow or is a result like another."""

    prompt: Prose | None = None
    """What the approver is asked."""


class MapSpec(_Spec):
    """The step is done once per item of a list that is known only when it starts."""

    over: Expression
    """JMESPath over input and earlier results that gives the list."""

    max_parallel: Count | None = None
    """How many items may be in work at once; none: all."""


class StepSpec(_Spec):
    """One step of a plan."""

    key: Key
    """Name of the step, unique in its plan."""

    task: Text | None = None
    """Registered name of the Celery task; none for a step that is only an approval."""

    args: JsonList = Field(default_factory=list)
    """Positional arguments, in which `{"$expr": "<JMESPath>"}` is replaced."""

    kwargs: JsonObject = Field(default_factory=dict)
    """Keyword arguments, in which `{"$expr": "<JMESPath>"}` is replaced."""

    after: Keys = ()
    """Keys of the steps that must be settled before."""

    queue: Text | None = None
    """Queue to send to; none: as Celery routes the task."""

    priority: Annotated[int, Field(strict=True, ge=0, le=255)] | None = None
    """Priority of the message: 0 to 9 on Redis, where 0 is the highest, 0 to 255 on RabbitMQ."""

    options: Routing = Field(default_factory=dict)
    """Further options of the message: exchange, routing_key, expires, headers, …"""

    retry: RetryPolicy = RetryPolicy()
    """When a failed attempt is tried again."""

    timeout_s: Seconds | None = Field(default=None, validation_alias=AliasChoices("timeout_s", "timeout"))
    """Seconds that an attempt may run, counted from its claim; `timeout` is read too."""

    when: Expression | None = None
    """Condition over input and results; if it is false when the step could start, it is skipped."""

    approval: Annotated[
        ApprovalSpec | None,
        BeforeValidator(empty_for_true, json_schema_input_type=ApprovalSpec | bool | None),
    ] = None
    """A decision to wait for, before the task is sent."""

    on_failure: OnFailure = OnFailure.FAIL
    """What the step's final failure does to the workflow."""

    trigger: Trigger = Trigger.ALL_COMPLETED
    """How the steps of `after` must have ended."""

    map: Annotated[MapSpec | None, BeforeValidator(over_for_text, json_schema_input_type=MapSpec | str | None)] = None
    """Do the step once per item: children `key.0`, `key.1`, …, whose results become one list."""

    on_external_revoke: OnExternalRevoke | None = None
    """What a foreign revoke does; none: as the plan says."""

    run_through: Annotated[bool, Field(strict=True)] | None = None
    """Whether the process that has completed the step before may go on with this one, without a message; none: as the plan says."""

    def references(self) -> frozenset[str]:
        """Keys of the steps whose result or state this step reads, with `expressions.ALL` for any.

        `ALL` means every step that this one waits for, directly or not.
        """
        conditions = [{EXPR: text} for _, text in self._conditions()]
        return references([self.args, self.kwargs, conditions])

    def expressions(self) -> tuple[tuple[JsonPath, str], ...]:
        """Every expression of the step, with the path of the field that holds it."""
        return (
            *self._conditions(),
            *embedded(self.args, ("args",)),
            *embedded(self.kwargs, ("kwargs",)),
        )

    def _conditions(self) -> tuple[tuple[JsonPath, str], ...]:
        over = () if self.map is None else ((("map", "over"), self.map.over),)
        when = () if self.when is None else ((("when",), self.when),)
        return (*when, *over)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        refuse(_step_problems(self))
        return self


class PlanSpec(_Spec):
    """A workflow's steps, and what holds for all of them."""

    name: Text | None = None
    """Name of the workflow, by which its runs are found."""

    task_description: Prose | None = None
    """What the workflow is for; a run cannot leave draft without one."""

    steps: tuple[StepSpec, ...]
    """The steps, in the order in which they are shown."""

    deadline_s: Seconds | None = None
    """Seconds that a run may take from its start; then it fails."""

    max_parallel: Count | None = None
    """How many steps may be in work at once; none: all."""

    on_external_revoke: OnExternalRevoke = OnExternalRevoke.CANCEL
    """What a foreign revoke does to a step that does not say so itself."""

    run_through: Annotated[bool, Field(strict=True)] = False
    """Whether a process that has completed a step may go on with the next; for steps that do not say so themselves."""

    @classmethod
    def parse(cls, obj: object) -> Self:
        """Read a plan, a mapping with `steps` or a list of steps, without looking across steps.

        Raises:
            InvalidPlan: Fields are missing, unknown or wrong; every such fault is listed.
        """
        if isinstance(obj, cls):
            return obj
        try:
            return cls.model_validate({"steps": obj} if isinstance(obj, list | tuple) else obj)
        except ValidationError as error:
            raise InvalidPlan([str(fault) for fault in faults_of(error, cls)]) from None

    def document(self) -> dict[str, Json]:
        """The stored form: JSON, without what is as by default."""
        return self.model_dump(mode="json", exclude_defaults=True)


def _step_problems(step: StepSpec) -> Iterator[Problem]:
    if step.task is None and step.approval is None:
        yield ("task",), "is required (only a step with `approval` can do without)"
    elif step.task is None:
        for name in ("args", "kwargs", "map"):
            if getattr(step, name):
                yield (name,), "has no use in a step without a task"
    if step.map is not None and len(step.key) > _MAX_MAPPED_KEY:
        yield ("key",), f"of a mapped step: at most {_MAX_MAPPED_KEY} characters, items add theirs"
    for path, text in step.expressions():
        names = sorted(read_expression(text).names & _PER_ITEM)
        if names and (step.map is None or path[0] not in ("args", "kwargs")):
            yield path, _per_item_fault(names, step)


def _per_item_fault(names: list[str], step: StepSpec) -> str:
    why = "the step has no `map`" if step.map is None else "here there are no items yet"
    return f"{' and '.join(names)}: only the arguments of a mapped step see them, and {why}"
