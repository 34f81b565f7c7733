"""One locked run inside a transaction: what is written to it is buffered, and flushed when somebody reads, or at the end.

Locking is a statement of its own, before anything else is read: a lock taken inside a larger statement reads the run's steps from a
snapshot older than the lock (ADR 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from sqlalchemy import ClauseElement, and_, select

from interlock.core.database.dialects import dialect_of
from interlock.core.database.tables import WorkflowRun, WorkflowStep, table_of_model
from interlock.core.errors import RunNotFound, TransitionConflict
from interlock.core.events import Effects
from interlock.core.model.states import StepState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE

from .history_rows import HistorySubject, append_step_rows, appending, next_row
from .pending_writes import NewStep, PendingWrites
from .run_row import LockedRun, read_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection

    from interlock.core.events import EventEmitter, StateChange
    from interlock.core.model.states import WorkflowState

    from .cause import Cause

__all__ = ["RunTransaction"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)


class RunTransaction:
    """A run under its lock. Use it inside a transaction and call `finish` last.

    Attributes:
        effects: What is to be told after the commit.
        run: The columns of the run's row that every transaction needs; `finish` writes them back.
        resuming: Set while a resume applies, one by one, what came during the pause: until all of it is applied, the run
            neither completes nor waits.
    """

    def __init__(
        self,
        connection: Connection,
        effects: Effects,
        run: LockedRun,
        *,
        emitter: EventEmitter | None = None,
        made: dict[str, Any] | None = None,
        is_new: bool = False,
    ) -> None:
        """Begin with a run that is locked.

        Args:
            connection: An open transaction.
            effects: Filled with what is to happen after the commit.
            run: The run.
            emitter: In-process listeners.
            made: Its columns, where this transaction makes the run.
            is_new: Whether its row is still to be inserted.
        """
        self.effects = effects
        self.run = run
        self.resuming = False
        self._connection = connection
        self._emitter = emitter
        self._stored = run.stored
        self._pending = PendingWrites(run=made, is_new=is_new)

    @classmethod
    def lock(
        cls,
        connection: Connection,
        effects: Effects,
        run_id: str,
        *,
        session_id: str | None = None,
        emitter: EventEmitter | None = None,
    ) -> Self:
        """Lock the run's row and read it.

        Args:
            connection: An open transaction.
            effects: Filled with what is to happen after the commit.
            run_id: The run.
            session_id: Given, a run of another session counts as not found.
            emitter: In-process listeners.

        Raises:
            RunNotFound: No such run (in this session).
        """
        dialect_of(connection).take_write_lock(connection)
        run = read_run(connection, run_id, lock=True)
        if session_id is not None and run.session_id != session_id:
            raise RunNotFound(run_id)
        return cls(connection, effects, run, emitter=emitter)

    @classmethod
    def peek(cls, connection: Connection, run_id: str) -> Self:
        """Read the run without its lock, for checks only: nothing may be moved by it.

        Raises:
            RunNotFound: No such run.
        """
        return cls(connection, Effects(), read_run(connection, run_id, lock=False))

    @property
    def connection(self) -> Connection:
        """The transaction, with every new row written; of the run's own row, `run` knows more than the table."""
        if self._pending.has_rows:
            self._flush_rows()
        return self._connection

    def finish(self) -> None:
        """Write what is pending, counters too. Call it once, last.

        Raises:
            TransitionConflict: The run's row was moved past the lock, by code that does not take it.
        """
        self._flush()

    # --- the run's row -------------------------------------------------------------------------------------------------

    def set_run(self, **values: Any) -> None:
        """Write columns of the run's row other than its status; a time may be given as `FromNow`."""
        if self._pending.is_new and any(isinstance(value, ClauseElement) for value in values.values()):
            self._flush_rows()  # an expression is evaluated on a row
        self._pending.set_run(values)

    def plan_head(self) -> Mapping[str, Any]:
        """The run's plan without its steps; empty where it has none."""
        known = self._pending.run or self._pending.values
        if "spec" not in known:
            known = {"spec": self.connection.scalar(select(_runs.c.spec).where(_runs.c.id == self.run.id))}
        return known["spec"] or {}

    def begin_run_history(self, cause: Cause) -> None:
        """Write the run's first row of history: from nothing to the state that it was created in."""
        self._append(HistorySubject(WORKFLOW_TABLE.entity_type, self.run.id), None, self.run.status, cause)

    # --- new steps -----------------------------------------------------------------------------------------------------

    @property
    def new_steps(self) -> Sequence[NewStep]:
        """The steps of `add_steps` that are not written yet, in plan order."""
        return tuple(self._pending.steps.values())

    def add_steps(self, steps: Iterable[NewStep], edges: Iterable[tuple[str, str]]) -> None:
        """Store steps, and edges as (id of the step that is waited for, id of the one that waits)."""
        self._pending.steps |= {step.id: step for step in steps}
        self._pending.edges += edges

    def begin_step_history(self, cause: Cause, *conditions: ColumnElement[bool]) -> None:
        """Write the first row of history of every step of the run (that meets `conditions`), in plan order."""
        if self._pending.steps and not conditions:
            for step in self._pending.steps.values():
                subject = HistorySubject(STEP_TABLE.entity_type, step.id, step.key, step.attempt)
                self._append(subject, None, StepState.PENDING, cause)
            return
        append = appending(and_(_steps.c.run_id == self.run.id, *conditions), None)
        self._record(append_step_rows(self.connection, self.run, append, cause, {}))

    # --- for transitions -------------------------------------------------------------------------------------------------

    def _append(self, subject: HistorySubject, source: str | None, target: str, cause: Cause) -> None:
        self._pending.history.append(next_row(self.run, subject, source, target, cause))

    def _record(self, changes: list[StateChange]) -> list[StateChange]:
        self.effects.changes.extend(changes)
        return changes

    def _run_edge(self, target: WorkflowState) -> dict[str, Any]:
        return {
            "entity_type": WORKFLOW_TABLE.entity_type,
            "entity_id": self.run.id,
            "from_state": self.run.status,
            "to_state": target,
            "allowed": WORKFLOW_TABLE.targets[self.run.status],
        }

    def _flush(self) -> None:
        """Write new rows and the run's own columns."""
        if self._pending.is_new or self._pending.steps:
            self._flush_rows()
        if self.run.stored == self._stored and not self._pending.values:
            return
        status, target = self._stored[0], self.run.status
        changes = self._pending.update(self._connection, self.run, status)
        if changes is None:
            self.run.status = status
            raise TransitionConflict(**self._run_edge(target))
        self._record(changes)
        self._stored = self.run.stored

    def _flush_rows(self) -> None:
        """Write new rows; of the run's own columns only with the row itself, where that is new."""
        stored = self.run.stored if self._pending.is_new else self._stored
        self._record(self._pending.insert(self._connection, self.run))
        self._stored = stored
