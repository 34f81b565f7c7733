"""What each command takes: the types of its `args`, and whether it needs a run. One table; a verb that is not in it is refused.

Checked at the door, for every way by which a command comes, so that no handler meets a type that it does not expect.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from interlock.core.errors import CommandRefused
from interlock.core.json_values import storable_text
from interlock.core.names import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .command import Command, Verb

__all__ = [
    "ARGUMENTS",
    "WITHOUT_RUN",
    "Args",
    "CreateArgs",
    "DecisionArgs",
    "EnqueueArgs",
    "ListArgs",
    "MaybeStepArgs",
    "NoArgs",
    "PauseArgs",
    "PlanArgs",
    "ReplayArgs",
    "SettleArgs",
    "StepArgs",
    "faults_of",
    "read_args",
]

_LARGEST: Final = 2**63 - 1  # what a BIGINT holds
_PLAIN: Final = re.compile(r"[A-Za-z0-9_]{1,40}")
_SHOWN: Final = 40


def _storable(text: str) -> str:
    if storable_text(text) != text:
        raise PydanticCustomError("text", "holds NUL or a lone surrogate, which cannot be stored")
    return text


def _time(given: object) -> datetime | None:
    if given is None:
        return None
    try:
        time = datetime.fromisoformat(given) if isinstance(given, str) else None
    except ValueError:
        time = None
    if time is None:
        raise PydanticCustomError("time", "is not an ISO 8601 time")
    if time.tzinfo is None:
        raise PydanticCustomError("time", "has no time zone: append Z or +00:00")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("time", "is beyond the years 1 to 9999") from None


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Time = Annotated[datetime | None, BeforeValidator(_time)]
Number = Annotated[int, Field(ge=0, le=_LARGEST)]
Limit = Annotated[int, Field(ge=1, le=_LARGEST)]


class Args(BaseModel):
    """What every command's arguments have in common: no unknown ones, and no conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class NoArgs(Args):
    """Nothing."""


class EnqueueArgs(Args):
    """A plan, and how its run begins. Plan and input are checked by the controller, which lists every fault."""

    plan: Any
    input: Any = None
    name: Text | None = None
    task_description: Text | None = None
    idempotency_key: Name | None = None
    start_at: Time = None


class CreateArgs(Args):
    """A run whose plan is still to be made."""

    task_description: Text
    name: Text | None = None
    input: Any = None
    meta: dict[str, Any] | None = None


class PlanArgs(Args):
    """A plan for a run that has none."""

    plan: Any


class MaybeStepArgs(Args):
    """The run, or one step of it."""

    step: Name | None = None


class PauseArgs(MaybeStepArgs):
    """How running bodies are treated; which modes there are, core knows."""

    mode: Text = "interrupt"


class StepArgs(Args):
    """One step."""

    step: Name


class DecisionArgs(StepArgs):
    """A decision about a step."""

    comment: Text | None = Field(default=None, max_length=10_000)


class SettleArgs(StepArgs):
    """A result given by hand; any JSON."""

    result: Any = None


class ReplayArgs(Args):
    """A page of a run's history."""

    after_seq: Number = 0
    limit: Limit = 1000


class ListArgs(Args):
    """Which runs; None does not restrict."""

    status: Text | None = None
    name: Text | None = None
    created_after: Time = None
    created_before: Time = None
    limit: Limit = 50


ARGUMENTS: Final[Mapping[Verb, type[Args]]] = {
    "enqueue": EnqueueArgs,
    "create": CreateArgs,
    "set_plan": PlanArgs,
    "start": NoArgs,
    "pause": PauseArgs,
    "resume": MaybeStepArgs,
    "cancel": NoArgs,
    "approve": DecisionArgs,
    "reject": DecisionArgs,
    "retry": StepArgs,
    "settle": SettleArgs,
    "rerun": NoArgs,
    "dispatch": NoArgs,
    "replay": ReplayArgs,
    "status": NoArgs,
    "result": MaybeStepArgs,
    "list": ListArgs,
    "explain": NoArgs,
}

WITHOUT_RUN: Final[frozenset[Verb]] = frozenset({"enqueue", "create", "list", "dispatch"})
"""Commands that concern no run, or make one; all others need a `workflow_id`."""


def read_args(command: Command) -> Args:
    """The command's arguments, as the model in `ARGUMENTS`.

    Raises:
        CommandRefused: They do not fit, or the run is missing; every fault is named.
    """
    try:
        args = ARGUMENTS[command.command].model_validate(command.args)
    except ValidationError as error:
        raise CommandRefused(command.command, faults_of(error, "args"), code="invalid") from None
    if command.workflow_id is None and command.command not in WITHOUT_RUN:
        raise CommandRefused(command.command, "workflow_id: is required for this command", code="invalid")
    return args


def faults_of(error: ValidationError, *path: str) -> str:
    """Every fault with its field, and without what was given: that may be a payload, or made to look like a log line."""
    return "; ".join(
        f"{'.'.join(_shown(part) for part in (*path, *fault['loc'])) or 'message'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    )


def _shown(part: str | int) -> str:
    return str(part) if isinstance(part, int) or _PLAIN.fullmatch(part) else repr(part[:_SHOWN])
