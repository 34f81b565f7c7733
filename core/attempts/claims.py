"""Claims attempts through a unit of work, wherever the fast path does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, bindparam, cast, func, select, update

from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import clock, seconds_after
from interlock.core.machine.attempt_columns import first_attempt_id
from interlock.core.machine.step_transition import StepTransition
from interlock.core.model.states import StepState

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row, Update

    from interlock.core.machine.cause import Cause
    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["AttemptRef", "Claim", "is_held_by", "read_attempt", "take"]

_steps = table_of_model(WorkflowStep)

_READ = select(
    _steps.c.id,
    _steps.c.key,
    _steps.c.status,
    _steps.c.task_id,
    _steps.c.claim_token,
    _steps.c.claimed_by,
    _steps.c.drain_task_id,
    _steps.c.drain_token,
    _steps.c.attempt,
    _steps.c.failures,
    _steps.c.losses,
    _steps.c.celery_retries,
    _steps.c.spec,
).where(_steps.c.id == bindparam("of_step"))


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """Which attempt is meant. Without a token it is the engine or a supervisor that speaks, not the holder."""

    run_id: str
    step_id: str
    task_id: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim.

    Attributes:
        granted: Whether the body may run.
        reason: Why not.
    """

    granted: bool
    reason: str = ""


def _claims(**more: Any) -> tuple[StepTransition, Update]:
    """How an attempt is claimed that is the step's first one, and one that is not."""
    seconds = {name: cast(bindparam(name), Float) for name in ("lease_s", "overdue_s")}
    values = {
        "claim_token": bindparam("token"),
        "claimed_by": bindparam("worker"),
        "claimed_at": clock(),
        "lease_until": seconds_after(seconds["lease_s"]),
        # Celery's own limits come first; this one is for a worker that does not keep them.
        "timeout_at": seconds_after(_steps.c.spec["timeout_s"].as_float() + seconds["overdue_s"]),
        "dispatch_check_at": None,
        "started_at": func.coalesce(_steps.c.started_at, clock()),
        **more,
    }
    unclaimed = (
        _steps.c.id == bindparam("of_step"),
        _steps.c.task_id == bindparam("of_task"),
        _steps.c.claim_token.is_(None),
    )
    first = StepTransition(StepState.RUNNING, *unclaimed, _steps.c.status == StepState.PENDING.value, **values)
    return first, update(_steps).where(*unclaimed, _steps.c.status == StepState.RUNNING.value).values(values)


_CLAIMS = _claims()
_CARRIED_CLAIMS = _claims(carrier_id=bindparam("carrier"))


def take(unit: UnitOfWork, settings: Settings, ref: AttemptRef, cause: Cause, carrier_id: str | None = None) -> Claim:
    """Claim an attempt for the holder of `ref.token`, where nobody else has it.

    Args:
        unit: The run, which executes.
        settings: Say how long a claim holds.
        ref: The attempt.
        cause: The worker.
        carrier_id: The message on which the process came, where it is not the attempt's own.
    """
    parameters = {
        "of_step": ref.step_id,
        "of_task": ref.task_id,
        "token": ref.token,
        "worker": cause.actor,
        "lease_s": settings.lease_s,
        "overdue_s": settings.cancel_grace_s + settings.lease_s,
    }
    first, later = _CLAIMS if carrier_id is None else _CARRIED_CLAIMS
    if carrier_id is not None:
        parameters["carrier"] = carrier_id

    def again() -> bool:
        """Claim an attempt after the first, which is `running` since it was dispatched: only its claim is new."""
        return unit.connection.execute(later, parameters).rowcount > 0

    def at_first() -> bool:
        return bool(unit.apply(first, cause, **parameters))

    is_first = ref.task_id == first_attempt_id(ref.step_id)
    if not ((at_first() or again()) if is_first else (again() or at_first())):
        return _why_not(unit.connection, ref)
    return Claim(granted=True)


def read_attempt(connection: Connection, step_id: str) -> Any:
    """What reports need of a step's row; None where there is no such step."""
    return connection.execute(_READ, {"of_step": step_id}).one_or_none()


def is_held_by(row: Row[*tuple[Any, ...]], ref: AttemptRef) -> bool:
    """Whether the attempt is the step's current one, and claimed with this token."""
    return ref.token is not None and row.claim_token == ref.token and row.task_id == ref.task_id


def _why_not(connection: Connection, ref: AttemptRef) -> Claim:
    row = read_attempt(connection, ref.step_id)
    if row is None:
        return Claim(granted=False, reason="there is no such step")
    if row.status == StepState.RUNNING.value and is_held_by(row, ref):
        return Claim(granted=True)  # our own claim, whose answer was lost
    if row.task_id != ref.task_id:
        return Claim(granted=False, reason=f"attempt {row.attempt} has replaced it")
    if row.claim_token is not None:
        return Claim(granted=False, reason=f"{row.claimed_by} holds it")
    return Claim(granted=False, reason=f"the step is {row.status}")
