"""What can be asked of a run, each verb inside one unit of work: create, plan, start, pause, resume, cancel.

Callers (the controller, the sweeper) bring the locked run and commit; a verb is a cascade and is done whole or not at all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from interlock.core.attempts.outcomes import apply_late
from interlock.core.database.tables import ApprovalRequest, WorkflowRun, WorkflowStep, new_id, table_of_model
from interlock.core.database.types import clock, seconds_after, seconds_between
from interlock.core.errors import CommandRefused, TransitionNotAllowed
from interlock.core.machine.pending_writes import FromNow, NewStep
from interlock.core.machine.run_row import LockedRun
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import WORKFLOW_TABLE
from interlock.core.orchestration import approvals
from interlock.core.orchestration.flow import PAUSE_MODES, Flow, check_mode
from interlock.core.orchestration.new_attempts import begin_attempts, redispatch_pending
from interlock.core.plan.run_through import NEXT_KINDS, kinds_ahead

from .step_operations import apply_intent, reopen_intended

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from interlock.core.events import Effects, EventEmitter
    from interlock.core.machine.cause import Cause
    from interlock.core.plan import PlanSpec
    from interlock.core.settings import Settings

__all__ = [
    "PAUSE_MODES",
    "NewRun",
    "begin_run",
    "cancel_run",
    "insert_run",
    "pause_run",
    "resume_run",
    "start_run",
    "store_plan",
]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)

_UNPLANNED = (WorkflowState.DRAFT, WorkflowState.PLANNING)


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
    if stored and not _is_first(connection, {**row, "status": run.status.value}):
        return None
    unit = UnitOfWork(connection, effects, run, emitter=emitter, made=row, is_new=not stored)
    unit.begin_run_history(cause)
    return unit


def _is_first(connection: Connection, row: dict[str, Any]) -> bool:
    """Insert a run unless its session has used the idempotency key before."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    # A second producer with the same key waits here for the first one's commit, and then inserts nothing.
    # Asked by RETURNING: of an INSERT, SQLAlchemy does not keep the row count.
    inserted = connection.scalar(
        insert(_runs)
        .values(row)
        .on_conflict_do_nothing(index_elements=[_runs.c.session_id, _runs.c.idempotency_key])
        .returning(_runs.c.id),
    )
    return inserted is not None


def store_plan(unit: UnitOfWork, plan: PlanSpec) -> None:
    """Store the plan's steps and edges, in place of those of an earlier plan.

    Steps enter the history when the run starts to execute; until then a plan is only a proposal.

    Raises:
        CommandRefused: The run is past planning.
    """
    run = unit.run
    if run.status not in _UNPLANNED:
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


def pause_run(unit: UnitOfWork, settings: Settings, cause: Cause, mode: str = "interrupt") -> None:
    """Executing → paused, running steps with it.

    Raises:
        CommandRefused: `mode` is not one of `PAUSE_MODES`.
        TransitionNotAllowed: The run is not executing.
    """
    check_mode(mode)
    _require(unit, WorkflowState.EXECUTING, WorkflowState.PAUSED)
    Flow(unit, settings).pause(cause, mode=mode, paused_by=cause.actor)


def resume_run(unit: UnitOfWork, settings: Settings, cause: Cause) -> None:
    """Paused → executing, with everything that waited: results and failures that came meanwhile, steps, dispatches.

    Raises:
        TransitionNotAllowed: The run is not paused.
    """
    _require(unit, WorkflowState.PAUSED, WorkflowState.EXECUTING)
    paused_s = unit.connection.scalar(
        select(seconds_between(_runs.c.paused_at, clock())).where(_runs.c.id == unit.run.id),
    )
    unit.move_run(
        WorkflowState.EXECUTING,
        cause,
        pause_mode=None,
        paused_by=None,
        paused_at=None,
        deadline_at=seconds_after(float(paused_s or 0), _runs.c.deadline_at),
    )
    flow = Flow(unit, settings)
    unit.resuming = True
    reopen_intended(unit)
    by_workflow = (_steps.c.status == StepState.PAUSED.value, _steps.c.paused_by.is_(None))
    late = unit.connection.execute(
        select(_steps)
        .where(
            _steps.c.run_id == unit.run.id,
            _steps.c.late.is_not(None),
            or_(and_(*by_workflow), _steps.c.status == StepState.FAILED.value),
        )
        .order_by(_steps.c.position),
    ).all()
    unit.connection.execute(
        update(_requests)
        .where(_requests.c.run_id == unit.run.id, _requests.c.decision.is_(None))
        .values(deadline_at=seconds_after(float(paused_s or 0), _requests.c.deadline_at)),
    )
    resumed = unit.move_steps(StepState.RUNNING, cause, *by_workflow, _steps.c.late.is_(None))
    if resumed:
        # One set, however many: those that resumed are the running ones without a claim. A mapped step has no attempt.
        begin_attempts(
            unit,
            settings,
            _steps.c.status == StepState.RUNNING.value,
            _steps.c.claim_token.is_(None),
            _steps.c.task_id.is_not(None),
        )
    redispatch_pending(unit, settings)
    for row in late:
        if unit.run.status is not WorkflowState.EXECUTING:
            break  # a failure that came while paused has ended the run, and cancelled the rest
        if row.status == StepState.FAILED.value:
            apply_intent(unit, settings, row)
        else:
            apply_late(unit, settings, row, cause)
    if unit.run.status is WorkflowState.EXECUTING:
        approvals.apply_stored(flow)
    unit.resuming = False
    if unit.run.status is WorkflowState.EXECUTING:
        flow.readvance()  # a failure that paused the run has not been counted by those that wait for the step


def cancel_run(unit: UnitOfWork, settings: Settings, cause: Cause) -> bool:
    """Any state that is not terminal → cancelled, with every unsettled step; False where it is cancelled already.

    Raises:
        TransitionNotAllowed: The run has completed or failed.
    """
    if unit.run.status is WorkflowState.CANCELLED:
        return False
    if WORKFLOW_TABLE.is_terminal(unit.run.status):
        unit.check_run(WorkflowState.CANCELLED, cause)
    if unit.run.status in _UNPLANNED:
        unit.begin_step_history(cause)
    Flow(unit, settings).end(WorkflowState.CANCELLED, cause)
    return True


def _require(unit: UnitOfWork, state: WorkflowState, target: WorkflowState) -> None:
    if unit.run.status is not state:
        raise TransitionNotAllowed(
            entity_type=WORKFLOW_TABLE.entity_type,
            entity_id=unit.run.id,
            from_state=unit.run.status,
            to_state=target,
            allowed=WORKFLOW_TABLE.targets[unit.run.status],
            detail=_what_instead(unit, target),
        )


def _what_instead(unit: UnitOfWork, target: WorkflowState) -> str:
    """What to do instead of a verb that does not apply, where the steps tell."""
    if unit.run.status is WorkflowState.WAITING_APPROVAL:
        waiting = _keys_in(unit, StepState.WAITING_APPROVAL)
        return f"it waits for the approval of {', '.join(waiting)}: approve, reject or cancel"
    if unit.run.status is WorkflowState.EXECUTING is target and (paused := _keys_in(unit, StepState.PAUSED)):
        return f"only single steps are paused, resume them by name: {', '.join(paused)}"
    return ""


def _keys_in(unit: UnitOfWork, state: StepState) -> Sequence[str]:
    keys = select(_steps.c.key).where(_steps.c.run_id == unit.run.id, _steps.c.status == state.value)
    return unit.connection.scalars(keys.order_by(_steps.c.position)).all()
