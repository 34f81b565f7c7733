"""Moves one run or step along one edge: table, guards, history and events; nothing follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from interlock.core.database.sessions import database_of, deliver_for, read_in_session, run_in_session
from interlock.core.database.tables import StateHistory, WorkflowRun, WorkflowStep
from interlock.core.database.types import clock
from interlock.core.errors import EntityNotFound, RunNotFound, StateMachineError
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import WORKFLOW_TABLE, table_of

from .attempt_columns import ENDED, RELEASED
from .cause import Cause
from .unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from interlock.core.events import Effects, EventEmitter

__all__ = ["StateMachine"]

_TERMINAL_STEPS = (StepState.COMPLETED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED)


class StateMachine:
    """Validated transitions of workflow runs or of steps.

    What follows from a move (cascades, what may run next) is the controller's and the engine's business.
    """

    def __init__(
        self,
        db_session: Session,
        entity_type: str,
        event_emitter: EventEmitter | None = None,
        session_id: str | None = None,
    ) -> None:
        """Set up the machine.

        Args:
            db_session: An SQLAlchemy session. A transaction that is open in it is joined by a savepoint; otherwise each
                transition opens and commits its own.
            entity_type: `"workflow_run"` or `"workflow_step"`.
            event_emitter: In-process listeners; the database's own where `db_session` comes from `Database.session()`.
            session_id: Given, an entity of another session is "not found".

        Raises:
            ValueError: Another `entity_type`.
        """
        self._table = table_of(entity_type)
        self._session = db_session
        self._session_id = session_id
        database = database_of(db_session)
        self._emitter = event_emitter or (database.emitter if database is not None else None)
        self._deliver = deliver_for(db_session, self._emitter)

    def transition_to(
        self,
        entity_id: str,
        new_state: str,
        reason: str | None = None,
        transitioned_by: str = "system",
        meta: dict[str, Any] | None = None,
    ) -> bool:
        """Move the entity to `new_state`.

        Returns:
            True when it moved; False when it was there already: no history row and no event then.

        Raises:
            UnknownState: There is no such state.
            EntityNotFound: There is no such entity (in this session).
            TransitionNotAllowed: The table has no such edge.
            GuardRefused: A guard did not hold.
            TransitionVetoed: A `state_changing` listener stopped it.
            TransitionConflict: It was moved by others meanwhile.
        """
        target = self._table.parse(new_state)
        cause = Cause.asked(transitioned_by, reason, meta)

        def work(connection: Connection, effects: Effects) -> bool:
            unit = self._lock(connection, effects, entity_id)
            if isinstance(target, WorkflowState):
                moved = unit.move_run(target, cause)
            else:
                moved = unit.move_step(entity_id, target, cause, **_step_columns(target, cause)) is not None
            unit.finish()
            return moved

        return run_in_session(self._session, work, self._deliver)

    def can_transition_to(self, entity_id: str, state: str) -> bool:
        """Whether table and guards would accept the move now; False for an unknown id or state."""
        try:
            target = self._table.parse(state)
            return read_in_session(self._session, lambda connection: self._check(connection, entity_id, target))
        except StateMachineError:
            return False

    def get_allowed_transitions(self, entity_id: str) -> list[str]:
        """The states the entity would be let into now, guards included; empty for an unknown id."""

        def work(connection: Connection) -> list[str]:
            row = self._row(connection, entity_id)
            if row is None:
                return []
            targets = self._table.targets[self._table.parse(row.status)]  # type: ignore[index]
            return [target for target in targets if self._holds(connection, entity_id, target)]

        return read_in_session(self._session, work)

    def get_state_history(self, entity_id: str) -> list[StateHistory]:
        """The entity's transitions in order of `seq`."""
        query = (
            select(StateHistory)
            .where(StateHistory.entity_type == self._table.entity_type, StateHistory.entity_id == entity_id)
            .order_by(StateHistory.seq)
        )
        if self._session_id is not None:
            query = query.where(StateHistory.session_id == self._session_id)

        def work(connection: Connection) -> list[StateHistory]:
            # Read by a session of their own, the rows are detached: history does not change, so none is re-read.
            with Session(connection) as reader:
                return list(reader.scalars(query))

        return read_in_session(self._session, work)

    def get_current_state(self, entity_id: str) -> str:
        """The entity's state.

        Raises:
            EntityNotFound: There is no such entity (in this session).
        """

        def work(connection: Connection) -> str:
            row = self._row(connection, entity_id)
            if row is None:
                raise self._not_found(entity_id)
            return self._table.parse(row.status)

        return read_in_session(self._session, work)

    def _check(self, connection: Connection, entity_id: str, target: WorkflowState | StepState) -> bool:
        row = self._row(connection, entity_id)
        return (
            row is not None and self._table.parse(row.status) != target and self._holds(connection, entity_id, target)
        )

    def _holds(self, connection: Connection, entity_id: str, target: WorkflowState | StepState) -> bool:
        """Ask table and guards without moving anything, and without taking the lock."""
        unit = UnitOfWork.peek(connection, self._run_id(connection, entity_id))
        cause = Cause("system")
        try:
            if isinstance(target, WorkflowState):
                unit.check_run(target, cause)
            else:
                unit.check_step(entity_id, target, cause)
        except StateMachineError:
            return False
        return True

    def _lock(self, connection: Connection, effects: Effects, entity_id: str) -> UnitOfWork:
        run_id = entity_id
        if self._table is not WORKFLOW_TABLE:
            found = connection.scalar(select(WorkflowStep.run_id).where(WorkflowStep.id == entity_id))
            if found is None:
                raise self._not_found(entity_id)
            run_id = found
        try:
            return UnitOfWork.lock(
                connection,
                effects,
                run_id,
                session_id=self._session_id,
                emitter=self._emitter,
            )
        except RunNotFound:
            raise self._not_found(entity_id) from None

    def _row(self, connection: Connection, entity_id: str) -> Any:
        model = WorkflowRun if self._table is WORKFLOW_TABLE else WorkflowStep
        query = select(model.id, model.status).where(model.id == entity_id)
        if self._session_id is not None:
            query = query.where(model.session_id == self._session_id)
        return connection.execute(query).one_or_none()

    def _run_id(self, connection: Connection, entity_id: str) -> str:
        if self._table is WORKFLOW_TABLE:
            return entity_id
        return connection.execute(select(WorkflowStep.run_id).where(WorkflowStep.id == entity_id)).scalar_one()

    def _not_found(self, entity_id: str) -> EntityNotFound:
        return EntityNotFound(entity_type=self._table.entity_type, entity_id=entity_id)


def _step_columns(target: StepState, cause: Cause) -> dict[str, Any]:
    if (
        target is StepState.PAUSED
    ):  # as a person's pause of the step, so that their resume ends it and the workflow's does not
        return {**RELEASED, "paused_by": cause.actor, "pause_mode": "drain"}
    return {"paused_by": None, "pause_mode": None, **_step_times(target)}


def _step_times(target: StepState) -> dict[str, Any]:
    if target is StepState.RUNNING:
        return {"started_at": clock(), "completed_at": None}
    # Timers that outlive what they time would keep the sweeper busy for ever.
    return {**ENDED, "completed_at": clock()} if target in _TERMINAL_STEPS else RELEASED
