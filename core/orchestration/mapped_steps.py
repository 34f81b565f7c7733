"""Expands a step over a list that is known only at run time into children, and joins their results.

The mapped step itself runs no task. It is running while its children are not settled, and completes with the list of their results
in the items' order, None for a child that did not complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from interlock.core.database.bulk_insert import insert_rows
from interlock.core.database.tables import StepDependency, WorkflowStep, new_id, table_of_model
from interlock.core.database.types import clock
from interlock.core.errors import ExpressionError
from interlock.core.json_values import json_size
from interlock.core.model.states import StepState
from interlock.core.names import check_name
from interlock.core.plan.expressions import evaluate
from interlock.core.plan.run_through import NEXT_KINDS

from .step_context import step_context

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from interlock.core.machine.cause import Cause
    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["expand", "items_of", "join", "joinable"]

_steps = table_of_model(WorkflowStep)
_dependencies = table_of_model(StepDependency)

# What the children do not inherit.
_PARENTS_OWN = ("map", "when", "approval", "trigger", NEXT_KINDS)


def items_of(unit: UnitOfWork, settings: Settings, row: Row[*tuple[Any, ...]]) -> list[Any]:
    """Evaluate the list of a mapped step.

    Raises:
        ExpressionError: `map.over` cannot be evaluated, gives no list, or gives too many items.
    """
    over = row.spec["map"]["over"]
    items = evaluate(over, step_context(unit.connection, unit.run.id, row.id, [over]))
    if not isinstance(items, list):
        kind = "nothing" if items is None else type(items).__name__
        raise ExpressionError(over, f"must give a list, not {kind}")
    present = unit.connection.scalar(select(func.count()).where(_steps.c.run_id == unit.run.id)) or 0
    if present + len(items) > settings.max_steps:
        detail = (
            f"gives {len(items):,} items, which with the {present:,} steps there are is over {settings.max_steps:,}"
        )
        raise ExpressionError(over, detail)
    return items


def expand(unit: UnitOfWork, row: Row[*tuple[Any, ...]], items: list[Any], cause: Cause) -> None:
    """Store a child for each item, and move the mapped step to running where it is not yet."""
    connection, run = unit.connection, unit.run
    inherited = {name: value for name, value in row.spec.items() if name not in _PARENTS_OWN}
    limit = row.spec["map"].get("max_parallel")
    last = connection.scalar(select(func.max(_steps.c.position)).where(_steps.c.run_id == run.id)) or 0
    parent = connection.execute(select(_steps.c.key, _steps.c.task).where(_steps.c.id == row.id)).one()
    children = [
        {
            "id": new_id(),
            "run_id": run.id,
            "session_id": run.session_id,
            "key": check_name("key", f"{parent.key}.{index}"),
            "position": last + 1 + index,
            "parent_id": row.id,
            "status": StepState.PENDING.value,
            "task": parent.task,
            "spec": {**inherited, "each": {"item": item, "index": index, "max_parallel": limit}},
        }
        for index, item in enumerate(items)
    ]
    unit.move_steps(
        StepState.RUNNING,
        cause.because(f"mapped over {len(items)} items"),
        _steps.c.id == row.id,
        _steps.c.status == StepState.PENDING.value,
        started_at=clock(),
    )
    connection.execute(
        update(_steps).where(_steps.c.id == row.id).values(open_deps=len(children), unmet_deps=0, failed_deps=0),
    )
    if children:
        insert_rows(connection, _steps, children)
        edges = [{"upstream_id": child["id"], "step_id": row.id, "run_id": run.id} for child in children]
        insert_rows(connection, _dependencies, edges)
        unit.begin_step_history(cause.because("item of a mapped step"), _steps.c.parent_id == row.id)
    run.open_steps += len(children)


def joinable(unit: UnitOfWork) -> Sequence[str]:
    """Ids of running mapped steps whose children are all settled, the last one while nobody counted."""
    query = select(_steps.c.id).where(
        _steps.c.run_id == unit.run.id,
        _steps.c.status == StepState.RUNNING.value,
        _steps.c.spec["map"].as_string().is_not(None),
        _steps.c.open_deps == 0,
    )
    return unit.connection.scalars(query.order_by(_steps.c.position)).all()


def join(unit: UnitOfWork, settings: Settings, step_id: str, cause: Cause) -> str | None:
    """Complete a mapped step whose children are all settled.

    Returns:
        None, or why it cannot complete: the joined list is over the limit of a result.
    """
    rows = unit.connection.execute(
        select(_steps.c.status, _steps.c.result).where(_steps.c.parent_id == step_id).order_by(_steps.c.position),
    ).all()
    results = [row.result if row.status == StepState.COMPLETED.value else None for row in rows]
    size = json_size(results)
    if size > settings.max_result_bytes:
        return f"the joined results have {size:,} bytes of JSON, over the limit of {settings.max_result_bytes:,}"
    unit.move_steps(
        StepState.COMPLETED,
        cause,
        _steps.c.id == step_id,
        result=results,
        completed_at=clock(),
    )
    return None
