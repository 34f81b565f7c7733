"""The one header of a step's Celery message, which says whose attempt it is; tasks' own signatures stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interlock.core.plan.run_through import NEXT_KINDS

if TYPE_CHECKING:
    from interlock.core.events import Dispatch

__all__ = ["HEADER", "StepHeader", "header_of", "next_kinds", "parse_header", "read_header"]

HEADER = "interlock"


@dataclass(frozen=True, slots=True)
class StepHeader:
    """What a worker is told about the attempt besides its task's arguments.

    Attributes:
        run_id: The workflow run.
        step_id: The step.
        session_id: Whose run it is.
        key: The step's key in its plan.
        attempt: Ordinal of the attempt, from 1.
    """

    run_id: str
    step_id: str
    session_id: str
    key: str
    attempt: int

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of the step, and for no other step."""
        return self.step_id


def header_of(dispatch: Dispatch) -> dict[str, Any]:
    """The header's value for a dispatch."""
    value = {
        "run_id": dispatch.run_id,
        "step_id": dispatch.step_id,
        "session_id": dispatch.session_id,
        "key": dispatch.key,
        "attempt": dispatch.attempt,
    }
    if NEXT_KINDS in dispatch.spec:
        value[NEXT_KINDS] = dispatch.spec[NEXT_KINDS]
    return value


def next_kinds(header: Any) -> frozenset[str]:
    """The kinds of the steps behind a message's own that may be run through; none where it does not say so."""
    kinds = header.get(NEXT_KINDS) if isinstance(header, dict) else None
    return frozenset(kind for kind in kinds if isinstance(kind, str)) if isinstance(kinds, list) else frozenset()


def read_header(request: Any) -> StepHeader | None:
    """The header of a task request (of the child's or of MAIN's), or None: not a step, or not our doing."""
    value = getattr(request, HEADER, None)
    if value is None:
        value = (getattr(request, "headers", None) or {}).get(HEADER)
    if value is None:
        value = (getattr(request, "request_dict", None) or {}).get(HEADER)
    return parse_header(value)


def parse_header(value: Any) -> StepHeader | None:
    """The header of a message, from what it says under `HEADER`."""
    if not isinstance(value, dict):
        return None
    try:
        return StepHeader(
            run_id=str(value["run_id"]),
            step_id=str(value["step_id"]),
            session_id=str(value["session_id"]),
            key=str(value["key"]),
            attempt=int(value["attempt"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
