"""Serves the calls of running bodies: checkpoints, progress, questions to people. Only the attempt's holder may call.

A checkpoint survives attempts and pauses; progress is for people who watch. Both are columns of the step and no transitions, so
they take no lock of the workflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, and_, or_, select, update

from interlock.core.database.tables import ApprovalRequest, WorkflowStep, table_of_model
from interlock.core.machine.attempt_columns import ENDED
from interlock.core.machine.cause import Cause
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.model.states import StepState
from interlock.core.orchestration import approvals, run_end
from interlock.core.orchestration.flow import Flow

from .leases import renew_leases

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from interlock.core.database.database import Database
    from interlock.core.events import Effects
    from interlock.core.settings import Settings

    from .attempts import AttemptRef

__all__ = ["StepCalls"]

_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)


class StepCalls:
    """The calls of running bodies, against one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def checkpoint(self, ref: AttemptRef) -> Any:
        """What the step's last checkpoint holds, of this attempt or an earlier one; None without."""
        with self._database.reading() as connection:
            return connection.scalar(select(_steps.c.checkpoint).where(_steps.c.id == ref.step_id))

    def save_checkpoint(self, ref: AttemptRef, document: Any) -> bool:
        """Store a checkpoint, a JSON value; False where the attempt no longer counts."""
        return self._write(ref, checkpoint=JSON.NULL if document is None else document)

    def save_progress(self, ref: AttemptRef, document: dict[str, Any]) -> bool:
        """Store how far the body is; False where the attempt no longer counts."""
        return self._write(ref, progress=document)

    def must_stop(self, ref: AttemptRef) -> bool:
        """Whether the workflow was paused (by interrupt) or cancelled, or the attempt replaced."""
        return bool(renew_leases(self._database, self._settings, [ref.task_id]))

    def decision(self, ref: AttemptRef, name: str) -> dict[str, Any] | None:
        """How the step's request `name` was decided: `decision`, `approved`, `by`, `comment`; None while it was not."""
        query = (
            select(_requests)
            .where(_requests.c.step_id == ref.step_id, _requests.c.applied.is_(True))
            .order_by(_requests.c.requested_at.desc())
        )
        with self._database.reading() as connection:
            for row in connection.execute(query):
                if (row.spec or {}).get("name") == name:
                    return approvals.decision_document(row.decision, row.decided_by, row.comment)
        return None

    def ask(self, ref: AttemptRef, spec: dict[str, Any]) -> bool:
        """End the attempt and let the step wait for a person; it is run again with the decision.

        Returns:
            False where the attempt no longer counts; a step that was paused meanwhile asks again when it is resumed.
        """

        def work(connection: Connection, effects: Effects) -> bool:
            unit = UnitOfWork.lock(connection, effects, ref.run_id, emitter=self._database.emitter)
            held = connection.execute(
                select(_steps.c.claimed_by).where(
                    _steps.c.id == ref.step_id,
                    _steps.c.status == StepState.RUNNING.value,
                    _steps.c.claim_token == ref.token,
                ),
            ).one_or_none()
            if held is None or not unit.run.is_executing:
                return False
            cause = Cause(held.claimed_by, spec.get("prompt") or "asks for an approval", {"task_id": ref.task_id})
            approvals.ask(unit, [ref.step_id], cause, spec, **ENDED)
            Flow(unit, self._settings).refill()  # while it waits, it holds no slot
            run_end.finish(unit)
            unit.finish()
            return True

        return self._database.transact(work, "body", ref.task_id)

    def _write(self, ref: AttemptRef, **values: Any) -> bool:
        def work(connection: Connection, effects: Effects) -> bool:  # noqa: ARG001 - `transact`'s protocol
            written = connection.execute(
                update(_steps).where(_steps.c.id == ref.step_id, _holder(ref)).values(**values),
            )
            return written.rowcount == 1

        return self._database.transact(work, "body", ref.task_id)


def _holder(ref: AttemptRef) -> ColumnElement[bool]:
    """The attempt holds the step, or was told to stop and has not been replaced: its clean-up may still save."""
    return or_(
        and_(_steps.c.task_id == ref.task_id, _steps.c.claim_token == ref.token),
        and_(_steps.c.drain_task_id == ref.task_id, _steps.c.drain_token == ref.token),
    )
