"""Makes one run inside a unit of work: its row, its plan, and its start.

Used by whoever makes or starts a run under a lock of its own: the controller, a rerun, and the sweeper for runs with a start time.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete

from interlock.core.database.dialects import insert_new
from interlock.core.database.tables import WorkflowRun, WorkflowStep, new_id, table_of_model
from interlock.core.errors import CommandRefused
from interlock.core.machine.pending_writes import FromNow, NewStep
from interlock.core.machine.run_row import LockedRun
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.model.states import WorkflowState
from interlock.core.orchestration.flow import Flow
from interlock.core.plan.run_through import NEXT_KINDS, kinds_ahead

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from interlock.core.events import Effects, EventEmitter
    from interlock.core.machine.cause import Cause
    from interlock.core.plan import PlanSpec
    from interlock.core.settings import Settings

__all__ = ["UNPLANNED", "NewRun", "begin_run", "insert_run", "start_run", "store_plan"]

UNPLANNED = (WorkflowState.DRAFT, WorkflowState.PLANNING)
"""States in which a run's plan may be set; its steps have no history yet."""

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run is created with; `input` and `meta` are JSON."""

    session_id: str
    name: str | None = None
    task_description: str | None = None
    input: Any = None
    meta: dict[str, Any] | None = None
    forked_from: str | None = None
    idempotency_key: str | None = None
    start_at: datetime | None = None


def insert_run(
    connection: Connection,
    effects: Effects,
    new: NewRun,
    cause: Cause,
    *,
    emitter: EventEmitter | None = None,
) -> UnitOfWork | None:
    """Store a run in draft with its first history row, and return it locked.

    Returns:
        None where the session has used the idempotency key before; nothing is written then.
    """
    run = LockedRun(new_id(), new.session_id, new.name, WorkflowState.DRAFT, 0, 0)
    row = {"id": run.id, **asdict(new)}
    stored = new.idempotency_key is not None
    # A second producer with the same key waits here for the first one's commit, and then inserts nothing.
    if stored and not insert_new(connection, _runs, {**row, "status": run.status.value}):
        return None
    unit = UnitOfWork(connection, effects, run, emitter=emitter, made=row, is_new=not stored)
    unit.begin_run_history(cause)
    return unit


def store_plan(unit: UnitOfWork, plan: PlanSpec) -> None:
    """Store the plan's steps and edges, in place of those of an earlier plan.

    Steps enter the history when the run starts to execute; until then a plan is only a proposal.

    Raises:
        CommandRefused: The run is past planning.
    """
    run = unit.run
    if run.status not in UNPLANNED:
        msg = f"a plan can be set while draft or planning; the workflow is {run.status}"
        raise CommandRefused("set_plan", msg)
    if run.open_steps:  # of an earlier plan; who enqueues deletes nothing, and needs no right to
        unit.connection.execute(delete(_steps).where(_steps.c.run_id == run.id))
    ids = {step.key: new_id() for step in plan.steps}
    specs = {
        step.key: step.model_dump(mode="json", exclude_defaults=True, exclude={"key", "task", "after"})
        for step in plan.steps
    }
    for key, kinds in kinds_ahead(plan, specs).items():
        specs[key][NEXT_KINDS] = kinds
    unit.add_steps(
        [
            NewStep(
                id=ids[step.key],
                key=step.key,
                position=position,
                task=step.task,
                spec=specs[step.key],
                open_deps=len(set(step.after)),
            )
            for position, step in enumerate(plan.steps)
        ],
        [(ids[upstream], ids[step.key]) for step in plan.steps for upstream in dict.fromkeys(step.after)],
    )
    head = plan.model_dump(mode="json", exclude_defaults=True, exclude={"steps"})
    unit.set_run(spec=head, max_parallel=plan.max_parallel)
    run.open_steps = len(plan.steps)
    run.max_parallel = plan.max_parallel


def start_run(unit: UnitOfWork, settings: Settings, cause: Cause) -> None:
    """Draft (or planning) → executing: the steps enter the history, and those that wait for nothing are dispatched."""
    begin_run(unit, cause)
    Flow(unit, settings).start_roots()


def begin_run(unit: UnitOfWork, cause: Cause) -> None:
    """Draft or planning → executing, with the steps' first rows of history; nothing is started yet."""
    unit.move_run(WorkflowState.PLANNING, cause)
    unit.begin_step_history(cause)
    deadline_s = unit.plan_head().get("deadline_s")
    unit.move_run(
        WorkflowState.EXECUTING,
        cause,
        started_at=FromNow(),
        start_at=None,
        deadline_at=None if deadline_s is None else FromNow(deadline_s),
    )
