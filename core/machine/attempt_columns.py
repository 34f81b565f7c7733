"""The columns of a step that describe its attempt: its id, its claim, its end, and what its message is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import case, func

from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.events import Dispatch

if TYPE_CHECKING:
    from sqlalchemy import Row

    from .pending_writes import NewStep

__all__ = [
    "DISPATCH_COLUMNS",
    "ENDED",
    "FIRST_ATTEMPT",
    "NO_CLAIM",
    "NO_DRAIN",
    "RELEASED",
    "dispatch_of",
    "first_attempt_id",
    "message_of_drain",
]

FIRST_ATTEMPT: Final = ".1"
"""What the Celery id of a step's first attempt has behind the step's id; in SQL too."""

_steps = table_of_model(WorkflowStep)

DISPATCH_COLUMNS = (
    _steps.c.id,
    _steps.c.key,
    _steps.c.position,
    _steps.c.task,
    _steps.c.task_id,
    _steps.c.attempt,
    _steps.c.celery_retries,
    _steps.c.spec,
    _steps.c.override,
    _steps.c.drain_token,
)
"""What `dispatch_of` needs of a step."""

NO_CLAIM: Final[dict[str, Any]] = {
    "claim_token": None,
    "claimed_by": None,
    "claimed_at": None,
    "lease_until": None,
    "timeout_at": None,
    "retry_at": None,
}
"""No claim, and nothing that a claim or a failure had set a time for."""

RELEASED: Final[dict[str, Any]] = {
    "drain_task_id": case((_steps.c.claim_token.is_not(None), _steps.c.task_id), else_=_steps.c.drain_task_id),
    "drain_token": func.coalesce(_steps.c.claim_token, _steps.c.drain_token),
    "drain_until": func.coalesce(_steps.c.lease_until, _steps.c.drain_until),
    **NO_CLAIM,
    "dispatch_check_at": None,
}
"""Columns to write when a step stops running while its body may still run: the claim becomes a draining one, every timer stops."""

NO_DRAIN: Final[dict[str, Any]] = {"drain_task_id": None, "drain_token": None, "drain_until": None}
"""No interrupted attempt whose body may still run."""

ENDED: Final[dict[str, Any]] = {**RELEASED, **NO_DRAIN}
"""Columns to write when a step's attempt has ended: nothing is left to drain."""


def first_attempt_id(step_id: str) -> str:
    """The Celery id of a step's first attempt, the only one that may be carried by another step's message."""
    return f"{step_id}{FIRST_ATTEMPT}"


def message_of_drain(row: Row[*tuple[Any, ...]]) -> str:
    """Celery id of the message whose process still runs a step's interrupted attempt: its carrier, or the attempt's own.

    Args:
        row: The step's `id`, `drain_task_id` and `carrier_id`.
    """
    is_carried = row.carrier_id is not None and row.drain_task_id == first_attempt_id(row.id)
    return str(row.carrier_id if is_carried else row.drain_task_id)


def dispatch_of(row: Row[*tuple[Any, ...]] | NewStep, run_id: str, session_id: str) -> Dispatch:
    """The dispatch of a step's current attempt, from a row with `DISPATCH_COLUMNS`."""
    return Dispatch(
        run_id=run_id,
        session_id=session_id,
        step_id=row.id,
        key=row.key,
        task=row.task,
        task_id=row.task_id,
        attempt=row.attempt,
        celery_retries=row.celery_retries,
        spec=row.spec or {},
        override=row.override,
    )
