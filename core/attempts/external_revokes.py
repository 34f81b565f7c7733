"""Applies revokes from outside Interlock (`celery control revoke`, Flower) to live attempts.

Workers remember revoked ids, so whatever goes on needs a new attempt with a new id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.machine.attempt_columns import ENDED, RELEASED
from interlock.core.machine.cause import Cause
from interlock.core.model.states import StepState
from interlock.core.orchestration import run_end
from interlock.core.orchestration.flow import Flow
from interlock.core.plan import OnExternalRevoke

from .outcomes import retry_now

if TYPE_CHECKING:
    from sqlalchemy import Row

    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["REVOKER", "apply_external_revoke"]

REVOKER = "celery revoke"

_steps = table_of_model(WorkflowStep)


def apply_external_revoke(
    unit: UnitOfWork,
    settings: Settings,
    row: Row[*tuple[Any, ...]],
    *,
    ended: bool,
) -> None:
    """Do what the step, or else its plan, says of a foreign revoke.

    Args:
        unit: The run.
        settings: Times.
        row: The step, pending with an attempt or running.
        ended: The body has ended, so nothing is left to drain; after the soft signal it may still clean up.
    """
    policy = _policy(unit, row)
    if policy is OnExternalRevoke.REDISPATCH and not unit.run.is_executing:
        return  # nothing starts now; what the resume sends is discarded for its burnt id, and comes back here
    cause = Cause(REVOKER, f"revoked outside of Interlock ({policy})")
    here = _steps.c.id == row.id
    released = ENDED if ended else RELEASED
    if policy is OnExternalRevoke.CANCEL:
        unit.move_steps(StepState.CANCELLED, cause, here, **released, completed_at=clock())
        run_end.interrupt_draining(unit, StepState.CANCELLED, "soft", here)
        Flow(unit, settings).settled([row.id])
        return
    unit.move_steps(StepState.RUNNING, cause, here, _steps.c.status == StepState.PENDING.value)
    if policy is OnExternalRevoke.PAUSE:
        unit.move_steps(StepState.PAUSED, cause, here, **released, paused_by=REVOKER)
        run_end.interrupt_draining(unit, StepState.PAUSED, "soft", here)
    else:
        unit.move_steps(StepState.FAILED, cause, here, **released)
        retry_now(unit, settings, [row.id], cause)
    run_end.finish(unit)


def _policy(unit: UnitOfWork, row: Row[*tuple[Any, ...]]) -> OnExternalRevoke:
    own = (row.spec or {}).get("on_external_revoke")
    if own is None:
        own = unit.plan_head().get("on_external_revoke", OnExternalRevoke.CANCEL)
    return OnExternalRevoke(own)
