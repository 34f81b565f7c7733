"""Makes a new run of a workflow that ended badly, which reuses the results of the steps that had completed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update

from interlock.core.database.tables import StepDependency, WorkflowRun, WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.errors import CommandRefused
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.orchestration.flow import Flow
from interlock.core.plan import PlanSpec
from interlock.core.plan.run_through import NEXT_KINDS

from .new_run import NewRun, begin_run, insert_run, store_plan

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from interlock.core.events import EventEmitter
    from interlock.core.machine.cause import Cause
    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["rerun", "stored_plan"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_dependencies = table_of_model(StepDependency)

_RERUNNABLE = (WorkflowState.FAILED, WorkflowState.CANCELLED)


def rerun(old: UnitOfWork, settings: Settings, cause: Cause, *, emitter: EventEmitter | None = None) -> str:
    """Start a run with the plan and input of an old one, `forked_from` it; steps that it completed are taken over.

    Args:
        old: The old run, locked.
        settings: Times and limits.
        cause: Who asks, and why.
        emitter: In-process listeners.

    Returns:
        The new run's id.

    Raises:
        CommandRefused: The old run has not ended failed or cancelled, or never had a plan.
    """
    connection, run = old.connection, old.run
    if run.status not in _RERUNNABLE:
        msg = f"only a failed or cancelled workflow is run again; this one is {run.status}"
        raise CommandRefused("rerun", msg)
    plan = stored_plan(connection, run.id)
    if not plan.steps:
        raise CommandRefused("rerun", "it has no plan: it was cancelled before it had one")
    stored = connection.execute(select(_runs).where(_runs.c.id == run.id)).one()
    new = NewRun(
        session_id=run.session_id,
        name=stored.name,
        task_description=stored.task_description,
        input=stored.input,
        meta=stored.meta,
        forked_from=run.id,
    )
    unit = insert_run(connection, old.effects, new, cause.because(f"run again after {run.id}"), emitter=emitter)
    if unit is None:  # only a used idempotency key is not inserted, and a rerun has none
        raise AssertionError
    store_plan(unit, plan)
    begin_run(unit, cause)
    _take_over(unit, run.id, cause)
    Flow(unit, settings).reconcile()
    unit.finish()
    return unit.run.id


def stored_plan(connection: Connection, run_id: str) -> PlanSpec:
    """The plan of a run as it was stored, without the items of mapped steps."""
    head = connection.scalar(select(_runs.c.spec).where(_runs.c.id == run_id)) or {}
    rows = connection.execute(
        select(_steps).where(_steps.c.run_id == run_id, _steps.c.parent_id.is_(None)).order_by(_steps.c.position),
    ).all()
    keys = {row.id: row.key for row in rows}
    after: dict[str, list[str]] = {}
    edges = select(_dependencies.c.step_id, _dependencies.c.upstream_id).where(_dependencies.c.run_id == run_id)
    for step_id, upstream_id in connection.execute(edges):
        if upstream_id in keys:
            after.setdefault(step_id, []).append(keys[upstream_id])
    steps: list[dict[str, Any]] = [
        {**(row.spec or {}), "key": row.key, "task": row.task, "after": after.get(row.id, [])} for row in rows
    ]
    for step in steps:
        step.pop(NEXT_KINDS, None)  # the plan says it in other words
    return PlanSpec.model_validate({**head, "steps": steps})


def _take_over(unit: UnitOfWork, old_id: str, cause: Cause) -> None:
    """Complete the steps that the old run had completed, with its results; a fixed number of statements.

    Not those behind a step that is run again (a clean-up, or what is done on failure): how they begin is not decided yet.
    """
    old = _steps.alias("old")
    of_plan = (old.c.run_id == old_id, old.c.parent_id.is_(None))
    ended_badly = old.c.status.in_([StepState.FAILED.value, StepState.CANCELLED.value])
    again = select(old.c.id.label("id")).where(*of_plan, ended_badly).cte("again", recursive=True)
    again = again.union(select(_dependencies.c.step_id).join(again, _dependencies.c.upstream_id == again.c.id))
    reused = (
        select(old.c.key)
        .where(*of_plan, old.c.status == StepState.COMPLETED.value, old.c.id.not_in(select(again.c.id)))
        .scalar_subquery()
    )
    # Nothing starts here, so that a guard on starting has no say.
    because = replace(cause.because(f"completed in {old_id}", {"reused_from": old_id}), vetoable=False)
    unit.move_steps(StepState.RUNNING, because, _steps.c.key.in_(reused), started_at=clock())
    unit.connection.execute(
        update(_steps)
        .where(
            _steps.c.run_id == unit.run.id,
            _steps.c.status == StepState.RUNNING.value,
            old.c.run_id == old_id,
            old.c.key == _steps.c.key,
        )
        .values(result=old.c.result),
    )
    unit.move_steps(StepState.COMPLETED, because, _steps.c.status == StepState.RUNNING.value, completed_at=clock())
