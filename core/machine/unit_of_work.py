"""Moves the run and its steps along the edges of the transition tables: the one write path of states.

Every transition takes its sources from the table, asks guards and listeners, numbers its history rows from the locked run's
`seq`, and leaves what is to be told after the commit in `effects`. No other module writes `status` or `state_history`, but for the
statements of `fast_path_sql`, which write the same for the commonest transitions.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, select

from interlock.core.database.dialects import dialect_of
from interlock.core.database.tables import WorkflowRun, WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.errors import (
    EntityNotFound,
    GuardRefused,
    TransitionConflict,
    TransitionNotAllowed,
    TransitionVetoed,
)
from interlock.core.events import STATE_CHANGING, StateChange
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE

from .guard_rules import NO_RULES, GuardRules, require_guards, rules_of
from .guards import GuardContext
from .history_rows import HistorySubject, append_step_rows, row_of
from .run_transaction import RunTransaction
from .step_transition import RUN, StepTransition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement

    from .cause import Cause

__all__ = ["UnitOfWork"]

logger = logging.getLogger("interlock.core")

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)

# On the way to executing a run is asked for attached guards whoever moves it: the engine starts what was enqueued for later.
_STARTING = (WorkflowState.DRAFT, WorkflowState.PLANNING)


class UnitOfWork(RunTransaction):
    """One locked run and the transitions made in it. Use it inside a transaction and call `finish` last."""

    # --- the run -----------------------------------------------------------------------------------------------------

    def move_run(self, target: WorkflowState, cause: Cause, **values: Any) -> bool:
        """Move the run along one edge of the table, guards included.

        Returns:
            False when it is in `target` already: nothing is written then.

        Raises:
            TransitionNotAllowed: The table has no such edge.
            GuardRefused: A guard did not hold.
            TransitionVetoed: A listener stopped it.
        """
        source = self.run.status
        if source == target:
            return False
        self._require_run(target, cause, self._rules if cause.vetoable or source in _STARTING else NO_RULES)
        subject = HistorySubject(WORKFLOW_TABLE.entity_type, self.run.id)
        self._announce([row_of(self.run, subject, source, target, cause)], cause)
        if WORKFLOW_TABLE.is_terminal(target):
            values = {"completed_at": clock(), "start_at": None, "deadline_at": None, **values}
        self.set_run(**values)
        self.run.status = target
        self._append(subject, source, target, cause)
        return True

    def check_run(self, target: WorkflowState, cause: Cause) -> None:
        """Raise unless table and guards, attached ones too, let the run move to `target` now."""
        self._require_run(target, cause, self._rules)

    def _require_run(self, target: WorkflowState, cause: Cause, rules: GuardRules) -> None:
        source = self.run.status
        if not WORKFLOW_TABLE.allows(source, target):
            raise TransitionNotAllowed(**self._run_edge(target))
        attached = rules.on(WORKFLOW_TABLE.entity_type, source, target, self.run.name)
        if not attached and not WORKFLOW_TABLE.guards.get((source, target)):
            return
        row: Mapping[Any, Any] | None = None if attached else self._pending.entity(self.run)
        if row is None:  # somebody else's guard may read what it likes
            self._flush()
            row = self._connection.execute(select(_runs).where(_runs.c.id == self.run.id)).mappings().one()
        self._require_guards(WORKFLOW_TABLE.entity_type, row, target, cause, rules)

    # --- steps -------------------------------------------------------------------------------------------------------

    def move_steps(
        self,
        target: StepState,
        cause: Cause,
        *conditions: ColumnElement[bool],
        **values: Any,
    ) -> list[StateChange]:
        """Move every step of the run that meets `conditions` and may move to `target`.

        The sources are those of the table, so no edge outside it can be written. Two statements, however many steps; with
        rules attached to the edge a third reads the steps that they are for. A guard that refuses what a caller or a command
        asks for refuses all of it; a worker's claim that a guard refuses finds no step, so that it is offered again later.

        Args:
            target: The state to move to.
            cause: Who and why.
            *conditions: On columns of `workflow_steps`.
            **values: Further columns to write with the move.

        Returns:
            The changes, in order of `seq`; empty when no step qualified.

        Raises:
            GuardRefused: An attached guard did not hold for one of the steps.
            TransitionVetoed: A listener stopped it.
        """
        return self.apply(StepTransition(target, *conditions, **values), cause)

    def apply(self, transition: StepTransition, cause: Cause, **parameters: Any) -> list[StateChange]:
        """Apply a transition that is built already, with its parameters; otherwise as `move_steps`."""
        if cause.vetoable:
            self._require_steps(transition.where, transition.target, cause, parameters)
        elif transition.claims and not self._may_start(transition, cause, parameters):
            return []
        return self._apply(transition, cause, parameters)

    def _apply(self, transition: StepTransition, cause: Cause, parameters: Mapping[str, Any]) -> list[StateChange]:
        parameters = {**parameters, RUN: self.run.id}
        self._announce_steps(transition, cause, parameters)
        connection = self.connection
        if dialect_of(connection).writes_in_ctes:
            # The lock is held, so the update finds the rows that history was appended for.
            return self._record(append_step_rows(connection, self.run, transition.insert_and_update, cause, parameters))
        changes = append_step_rows(connection, self.run, transition.append, cause, parameters)
        if changes:
            connection.execute(transition.update, parameters)
        return self._record(changes)

    def move_step(self, step_id: str, target: StepState, cause: Cause, **values: Any) -> StateChange | None:
        """Move one step along one edge, guards included.

        Returns:
            None when it is in `target` already.

        Raises:
            EntityNotFound: The run has no such step.
            TransitionNotAllowed: The table has no such edge.
            GuardRefused: A guard did not hold.
            TransitionVetoed: A listener stopped it.
        """
        row = self._required_step(step_id, target, cause, self._rules if cause.vetoable else NO_RULES)
        if row is None:
            return None
        transition = StepTransition(target, _steps.c.id == step_id, _steps.c.status == row["status"], **values)
        changes = self._apply(transition, cause, {})
        if not changes:
            raise TransitionConflict(**_step_edge(row, target))
        return changes[0]

    def check_step(self, step_id: str, target: StepState, cause: Cause) -> Mapping[Any, Any] | None:
        """Return the step's row if it may move to `target`, None if it is there already; raise otherwise."""
        return self._required_step(step_id, target, cause, self._rules)

    def _required_step(
        self, step_id: str, target: StepState, cause: Cause, rules: GuardRules
    ) -> Mapping[Any, Any] | None:
        row = (
            self.connection.execute(select(_steps).where(_steps.c.id == step_id, _steps.c.run_id == self.run.id))
            .mappings()
            .one_or_none()
        )
        if row is None:
            raise EntityNotFound(entity_type=STEP_TABLE.entity_type, entity_id=step_id, to_state=target)
        source = STEP_TABLE.parse(row["status"])
        if source == target:
            return None
        if not STEP_TABLE.allows(source, target):
            raise TransitionNotAllowed(**_step_edge(row, target))
        self._require_guards(STEP_TABLE.entity_type, row, target, cause, rules)
        return row

    def check_steps(self, target: StepState, cause: Cause, *conditions: ColumnElement[bool]) -> None:
        """Raise unless the attached guards let every step that meets `conditions` move to `target` now."""
        self._require_steps(and_(_steps.c.run_id == bindparam(RUN), *conditions), target, cause, {})

    def _require_steps(
        self, where: ColumnElement[bool], target: StepState, cause: Cause, parameters: Mapping[str, Any]
    ) -> None:
        """Ask the attached guards about each step that would move; without a rule for the edge nothing is read."""
        ruled = self._rules.steps_moving_to(target, self.run.name) if self._rules else None
        if ruled is None:
            return
        query = select(_steps).where(where, ruled).order_by(_steps.c.position, _steps.c.key)
        for row in self.connection.execute(query, {**parameters, RUN: self.run.id}).mappings().all():
            self._require_guards(STEP_TABLE.entity_type, row, target, cause, self._rules)

    def _may_start(self, transition: StepTransition, cause: Cause, parameters: Mapping[str, Any]) -> bool:
        try:
            self._require_steps(transition.where, transition.target, cause, parameters)
        except GuardRefused as refusal:
            logger.info("a start is postponed: %s", refusal)
            return False
        return True

    # --- guards and listeners ------------------------------------------------------------------------------------------

    @property
    def _rules(self) -> GuardRules:
        return rules_of(self._connection)

    def _require_guards(
        self, entity_type: str, row: Mapping[Any, Any], target: str, cause: Cause, rules: GuardRules
    ) -> None:
        context = GuardContext(
            connection=self._connection,
            entity_type=entity_type,
            entity=row,
            from_state=row["status"],
            to_state=target,
            actor=cause.actor,
            reason=cause.reason,
            meta=cause.meta,
            plan=self._pending.plan(),
        )
        require_guards(context, rules, self.run.name)

    def _announce(self, rows: list[dict[str, Any]], cause: Cause) -> None:
        """Tell `state_changing` listeners, who may veto what a caller or a command asked for."""
        if self._emitter is None or not self._emitter.listens(STATE_CHANGING):
            return
        self._flush()  # a listener may look at the rows
        for row in rows:
            change = StateChange.from_row(row)
            try:
                self._emitter.emit(STATE_CHANGING, change.data())
            except TransitionVetoed as veto:
                if cause.vetoable:
                    veto.entity_type, veto.entity_id = change.entity_type, change.entity_id
                    veto.from_state, veto.to_state = change.from_state, change.to_state
                    raise
                logger.warning("veto of %s → %s ignored: it has already happened", change.from_state, change.to_state)

    def _announce_steps(self, transition: StepTransition, cause: Cause, parameters: Mapping[str, Any]) -> None:
        if self._emitter is None or not self._emitter.listens(STATE_CHANGING):
            return
        moving = (
            select(_steps.c.id, _steps.c.key, _steps.c.attempt, _steps.c.status)
            .where(transition.where)
            .order_by(_steps.c.position, _steps.c.key)
        )
        steps = self.connection.execute(moving, parameters).all()
        subjects = [HistorySubject(STEP_TABLE.entity_type, step.id, step.key, step.attempt) for step in steps]
        rows = [
            row_of(self.run, subject, step.status, transition.target, cause)
            for subject, step in zip(subjects, steps, strict=True)
        ]
        self._announce(rows, cause)


def _step_edge(row: Mapping[Any, Any], target: StepState) -> dict[str, Any]:
    source = STEP_TABLE.parse(row["status"])
    return {
        "entity_type": STEP_TABLE.entity_type,
        "entity_id": row["id"],
        "from_state": source,
        "to_state": target,
        "allowed": STEP_TABLE.targets[source],
    }
