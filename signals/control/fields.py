"""The types of a control message's fields, and how a fault in one is told.

Strict and without conversions: what a handler is given has the type that its operation expects.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from interlock.core.json_values import storable_text
from interlock.core.names import NAME_PATTERN

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["Args", "Limit", "Name", "Number", "Text", "Time", "faults_of"]

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
    """The arguments of a verb: no unknown ones, and no conversions. Of itself, a verb without arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


def faults_of(error: ValidationError, *path: str) -> str:
    """Every fault with its field, and without what was given: that may be a payload, or made to look like a log line."""
    return "; ".join(
        f"{'.'.join(_shown(part) for part in (*path, *fault['loc'])) or 'message'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    )


def _shown(part: str | int) -> str:
    return str(part) if isinstance(part, int) or _PLAIN.fullmatch(part) else repr(part[:_SHOWN])
