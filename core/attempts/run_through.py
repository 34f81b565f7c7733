"""Run-through: a process that has completed a step claims the next one in the same transaction, without a message.

MAIN knows the process by the message on which it came, the *carrier*. So the row of a *carried* step names its carrier until the
step has completed, and whoever means the process of a carried attempt has to name both. Only first attempts are carried; a retry
or a resume has a message of its own (ADR 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.machine.attempt_columns import DISPATCH_COLUMNS, dispatch_of, first_attempt_id
from interlock.core.machine.cause import Cause
from interlock.core.model.states import WorkflowState
from interlock.core.plan.run_through import NOT_CARRIED, kind_of

from .claims import AttemptRef, take

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from interlock.core.events import Dispatch
    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["RunThroughOffer", "carriers_of", "claim_next", "live_carried", "previously_claimed"]

_steps = table_of_model(WorkflowStep)


@dataclass(frozen=True, slots=True)
class RunThroughOffer:
    """A process's offer to run the step that its completion makes ready.

    Attributes:
        carrier_id: Celery id of the message on which the process came.
        token: For the claim of that step.
        kinds: What lies ahead that it could run, and would get from the queue that it came from, each as `kind_of` says it.
    """

    carrier_id: str
    token: str
    kinds: frozenset[str]

    def takes(self, dispatch: Dispatch, *, by_default: bool) -> bool:
        """Whether the process may run an attempt that is due.

        Args:
            dispatch: The attempt.
            by_default: What its plan says of steps that do not say so themselves.
        """
        spec = dispatch.spec
        asked_for = spec.get("run_through", by_default) and not any(name in spec for name in NOT_CARRIED)
        return bool(asked_for) and dispatch.attempt == 1 and kind_of(dispatch.task, spec.get("queue")) in self.kinds


def claim_next(unit: UnitOfWork, settings: Settings, offer: RunThroughOffer, worker: str) -> Dispatch | None:
    """Claim the one attempt that the unit of work has made due, instead of sending it, where the offer fits.

    Returns:
        The attempt; None where it is sent.
    """
    due, run = unit.effects.dispatches, unit.run
    if len(due) != 1 or run.max_parallel is not None or run.status is not WorkflowState.EXECUTING:
        return None
    claimed = due[0]
    if not offer.takes(claimed, by_default=unit.plan_head().get("run_through", False)):
        return None
    ref = AttemptRef(run.id, claimed.step_id, claimed.task_id, offer.token)
    cause = Cause(worker, "claimed", {"carrier": offer.carrier_id})
    if not take(unit, settings, ref, cause, carrier_id=offer.carrier_id).granted:
        return None
    due.clear()
    return claimed


def previously_claimed(unit: UnitOfWork, offer: RunThroughOffer) -> Dispatch | None:
    """The step that was claimed by an offer whose answer was lost."""
    row = unit.connection.execute(
        select(*DISPATCH_COLUMNS).where(
            _steps.c.carrier_id == offer.carrier_id,
            _steps.c.claim_token == offer.token,
        ),
    ).one_or_none()
    return None if row is None else dispatch_of(row, unit.run.id, unit.run.session_id)


def live_carried(connection: Connection, run_id: str, carrier_id: str) -> Sequence[str]:
    """Ids of the steps that the message `carrier_id` carries and whose attempt is held or draining."""
    rows = connection.execute(
        select(_steps.c.id, _steps.c.task_id, _steps.c.drain_task_id).where(
            _steps.c.run_id == run_id,
            _steps.c.carrier_id == carrier_id,
            or_(_steps.c.claim_token.is_not(None), _steps.c.drain_token.is_not(None)),
        ),
    ).all()
    return [row.id for row in rows if first_attempt_id(row.id) in (row.task_id, row.drain_task_id)]


def carriers_of(connection: Connection, message_ids: Sequence[str]) -> Mapping[str, str]:
    """The attempts that these messages carry and that have no result yet, each with its carrier's id."""
    carried = connection.execute(
        select(_steps.c.id, _steps.c.carrier_id).where(
            # The condition of the partial index.
            _steps.c.carrier_id.is_not(None),
            _steps.c.carrier_id.in_(message_ids),
        ),
    ).all()
    return {first_attempt_id(row.id): row.carrier_id for row in carried}
