"""The wire format of events: channel names, and CloudEvents 1.0 JSON (structured mode).

    {"specversion": "1.0", "id": "<history id>", "source": "interlock/<session>/<workflow>",
     "type": "interlock.step.state_changed", "subject": "<step key>", "time": "2026-01-31T12:00:00.123456+00:00",
     "datacontenttype": "application/json", "data": {…StateChange.data()…}}

`subject` is the step's key, or the run's id where the run itself moved. Subscribers ignore members that they do not
know: later versions add some. Nothing here knows a connection.
"""

from __future__ import annotations

from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from interlock.core.errors import InterlockError
from interlock.core.events import StateChange
from interlock.core.json_values import compact_json
from interlock.core.names import NAME_PATTERN, check_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "EVENT_TYPES",
    "UnreadableEvent",
    "change_of",
    "channel",
    "decode",
    "encode",
    "event_document",
    "session_pattern",
]

EVENT_TYPES: Final = MappingProxyType(
    {
        "workflow_run": "interlock.workflow.state_changed",
        "workflow_step": "interlock.step.state_changed",
    },
)
"""The CloudEvents type of a change, by the entity's type."""

_Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class UnreadableEvent(InterlockError, ValueError):
    """A message on an event channel is not one of ours, or is broken.

    Attributes:
        faults: What is wrong, each with the member's path; never the message's content.
    """

    def __init__(self, faults: tuple[str, ...]) -> None:
        self.faults = faults
        super().__init__(f"not an Interlock event: {'; '.join(faults)}")


def channel(prefix: str, session_id: str, workflow_id: str) -> str:
    """Return the Redis channel of one workflow's events.

    Raises:
        InvalidName: A part holds characters that names may not hold.
    """
    return f"{_session_channel(prefix, session_id)}{check_name('workflow_id', workflow_id)}"


def session_pattern(prefix: str, session_id: str) -> str:
    """Return the PSUBSCRIBE pattern of all of a session's channels, and of no other session's.

    Names hold no wildcard and no colon, so neither the prefix nor the session can widen the pattern.

    Raises:
        InvalidName: A part holds characters that names may not hold.
    """
    return f"{_session_channel(prefix, session_id)}*"


def _session_channel(prefix: str, session_id: str) -> str:
    return f"{check_name('channel_prefix', prefix)}.events:{check_name('session_id', session_id)}:"


def encode(change: StateChange) -> bytes:
    """Return the event of a committed change, as a message.

    Raises:
        ValueError: The change is not committed (it has no history id), or its meta is not JSON.
    """
    return compact_json(event_document(change)).encode()


def event_document(change: StateChange) -> dict[str, Any]:
    """Return the event of a committed change, as JSON that is still to be written.

    Raises:
        ValueError: The change is not committed (it has no history id).
    """
    if change.history_id is None:
        msg = "only a committed change is an event; this one has no history id"
        raise ValueError(msg)
    data = change.data()
    event = {
        "specversion": "1.0",
        "id": str(change.history_id),
        "source": f"interlock/{change.session_id}/{change.workflow_id}",
        "type": EVENT_TYPES[change.entity_type],
        "subject": change.step_key or change.workflow_id,
        "time": data["created_at"],
        "datacontenttype": "application/json",
        "data": data,
    }
    if event["time"] is None:
        del event["time"]  # an attribute that is absent is left out: CloudEvents knows no null
    return event


def decode(message: bytes | str) -> StateChange:
    """Return the change that an event tells of.

    Raises:
        UnreadableEvent: It is not an event of this format.
    """
    return _change(_Event.model_validate_json, message)


def change_of(document: object) -> StateChange:
    """Return the change that an event tells of, whose JSON was read before.

    Raises:
        UnreadableEvent: It is not an event of this format.
    """
    return _change(_Event.model_validate, document)


def _change(validate: Callable[[Any], _Event], given: object) -> StateChange:
    try:
        event = validate(given)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        described = tuple(_describe(fault["loc"], fault["msg"]) for fault in faults)
        raise UnreadableEvent(described) from None  # pydantic's own text would quote the message
    return event.change()


def _describe(path: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join(map(str, path))}: {message}" if path else message


def _time(given: object) -> object:
    try:
        return datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError:
        raise PydanticCustomError("time", "is not an ISO 8601 time") from None


class _Data(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    entity_type: Literal["workflow_run", "workflow_step"]
    entity_id: _Name
    workflow_id: _Name
    session_id: _Name
    step: str | None = None
    from_state: str | None
    to_state: str
    reason: str | None = None
    transitioned_by: str
    seq: int = Field(ge=1)
    attempt: int | None = None
    created_at: Annotated[AwareDatetime | None, BeforeValidator(_time)] = None
    meta: dict[str, Any] | None = None


class _Event(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    specversion: Literal["1.0"]
    id: str = Field(pattern=r"^[0-9]{1,19}$")
    type: str
    data: _Data

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.type != EVENT_TYPES[self.data.entity_type]:
            msg = "type does not fit data.entity_type"
            raise ValueError(msg)
        return self

    def change(self) -> StateChange:
        at = self.data.created_at
        return StateChange(
            history_id=int(self.id),
            step_key=self.data.step,
            created_at=at.astimezone(UTC) if at else None,
            **self.data.model_dump(exclude={"step", "created_at"}),
        )
