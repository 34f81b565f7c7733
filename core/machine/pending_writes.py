"""Holds what a transaction has decided about its run and not written yet, and writes it together.

A run that is made and started in one transaction moves three times, and its steps are stored, entered in the history and given
their first attempts; nobody else can see anything between. So new rows and the run's own columns are held here, and go out in one
or two statements: when somebody is about to read, or at the end (ADR 8).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import ClauseElement, bindparam, update

from interlock.core.database.bulk_insert import Batch, insert_batches, update_then_insert
from interlock.core.database.tables import StateHistory, StepDependency, WorkflowRun, WorkflowStep, table_of_model
from interlock.core.database.types import seconds_after
from interlock.core.events import StateChange
from interlock.core.model.states import StepState

from .history_rows import GENERATED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection, Row, Update

    from interlock.core.model.states import WorkflowState

    from .run_row import LockedRun

__all__ = ["FromNow", "NewStep", "PendingWrites"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_dependencies = table_of_model(StepDependency)
_history = table_of_model(StateHistory)

_NO_RUN: dict[str, Any] = {column.name: None for column in _runs.c}
_RUN_TIMERS = ("started_at", "deadline_at")
_STEP_TIMERS = ("dispatch_check_at",)


@dataclass(frozen=True, slots=True)
class FromNow:
    """A time so many seconds after the statement that writes it: by the database's clock, not by ours."""

    seconds: float = 0.0


@dataclass(slots=True)
class NewStep:
    """A pending step whose row is not written yet; to be read like that row.

    Attributes:
        dispatch_check_at: In seconds from when the row is written.
    """

    id: str
    key: str
    position: int
    task: Any
    spec: dict[str, Any]
    open_deps: int
    attempt: int = 0
    task_id: Any = None
    dispatches: int = 0
    dispatch_check_at: float | None = None
    # As every new step has them.
    parent_id: None = None
    unmet_deps: int = 0
    failed_deps: int = 0
    celery_retries: int = 0
    override: None = None
    drain_token: None = None

    def row(self, run: LockedRun) -> dict[str, Any]:
        """What is stored; the other columns have their defaults."""
        return {
            "id": self.id,
            "run_id": run.id,
            "session_id": run.session_id,
            "key": self.key,
            "position": self.position,
            "status": StepState.PENDING.value,
            "task": self.task,
            "spec": self.spec,
            "open_deps": self.open_deps,
            "attempt": self.attempt,
            "task_id": self.task_id,
            "dispatches": self.dispatches,
            "dispatch_check_at": self.dispatch_check_at,
        }


@dataclass(slots=True)
class PendingWrites:
    """Rows and columns, in the order in which they were decided.

    Attributes:
        run: Columns of the run's own row, where the unit of work has made it.
        is_new: Whether that row is still to be inserted.
        values: Columns to write to the run's row, where that is stored.
        steps: New steps, by id, in plan order.
        edges: New edges, as (id of the step that is waited for, id of the step that waits).
        history: New rows of the history.
    """

    run: dict[str, Any] | None = None
    is_new: bool = False
    values: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, NewStep] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def has_rows(self) -> bool:
        """Whether there are new rows."""
        return bool(self.history or self.steps or self.is_new)

    def set_run(self, values: Mapping[str, Any]) -> None:
        """Have columns written to the run's row, or with it where it is new; a time may be given as `FromNow`."""
        if self.run is not None:
            self.run |= {name: value.seconds if isinstance(value, FromNow) else value for name, value in values.items()}
        if not self.is_new:
            self.values |= {
                name: seconds_after(value.seconds) if isinstance(value, FromNow) else value
                for name, value in values.items()
            }

    def insert(self, connection: Connection, run: LockedRun) -> list[StateChange]:
        """Write the new rows, and forget them; returns the changes in the history."""
        batches = [
            Batch(_runs, [self._run_row(run)] if self.is_new else [], _RUN_TIMERS),
            Batch(_steps, [step.row(run) for step in self.steps.values()], _STEP_TIMERS),
            Batch(_dependencies, [{"upstream_id": up, "step_id": down, "run_id": run.id} for up, down in self.edges]),
            Batch(_history, self.history),
        ]
        stored = insert_batches(connection, batches, GENERATED if self.history else ())
        self.is_new, self.steps, self.edges = False, {}, []
        return self._changes(stored)

    def update(self, connection: Connection, run: LockedRun, status: WorkflowState) -> list[StateChange] | None:
        """Write the columns of the stored row, and what there is of history.

        Args:
            connection: The transaction.
            run: What its row is to be.
            status: What it was.

        Returns:
            The changes in the history; None where the run's status is not what it was, and nothing was written.
        """
        columns = {**self.values, **_columns_of(run)}
        expressions = {name: value for name, value in columns.items() if isinstance(value, ClauseElement)}
        written = _writing(tuple(name for name in columns if name not in expressions))
        if expressions:
            written = written.values(expressions)
        parameters = {_new(name): value for name, value in columns.items() if name not in expressions}
        parameters |= {"written_run": run.id, "written_status": status.value}
        stored = update_then_insert(connection, written, parameters, Batch(_history, self.history), GENERATED)
        if stored is None:
            return None
        self.values = {}
        return self._changes(stored)

    def _changes(self, stored: Iterable[Row[*tuple[Any, ...]]]) -> list[StateChange]:
        generated = {row.seq: row._asdict() for row in stored}
        changes = [StateChange.from_row({**row, **generated[row["seq"]]}) for row in self.history]
        self.history = []
        return changes

    def entity(self, run: LockedRun) -> Mapping[str, Any] | None:
        """The row of a run that was made here, as it will be; its times are not known. None for another."""
        if self.run is None:
            return None
        return {**_NO_RUN, **self.run, **dict.fromkeys(_RUN_TIMERS), **_columns_of(run)}

    def plan(self) -> dict[str, list[str]] | None:
        """What each step waits for, where no step of the plan is written yet; else None."""
        if not self.steps:
            return None
        graph: dict[str, list[str]] = {step_id: [] for step_id in self.steps}
        for upstream_id, step_id in self.edges:
            graph[step_id].append(upstream_id)
        return graph

    def _run_row(self, run: LockedRun) -> dict[str, Any]:
        return {**dict.fromkeys(_RUN_TIMERS), **(self.run or {}), **_columns_of(run)}


def _columns_of(run: LockedRun) -> dict[str, Any]:
    """The columns of a run's row that are written with every update of it."""
    return {
        "status": run.status.value,
        "seq": run.seq,
        "open_steps": run.open_steps,
        "waiting_steps": run.waiting_steps,
    }


@cache
def _writing(names: tuple[str, ...]) -> Update:
    """The statement that writes these columns to the run's row, built once for each set of them."""
    is_as_read = _runs.c.id == bindparam("written_run"), _runs.c.status == bindparam("written_status")
    return update(_runs).where(*is_as_read).values({name: bindparam(_new(name)) for name in names})


def _new(name: str) -> str:
    return f"new_{name}"  # a parameter may not be called as a column
