"""Reads what a step's expressions refer to: input, results and states, and no more of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from interlock.core.database.tables import StepDependency, WorkflowRun, WorkflowStep, table_of_model
from interlock.core.model.states import StepState
from interlock.core.plan.expressions import ALL, read_expression

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Select

__all__ = ["step_context"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_dependencies = table_of_model(StepDependency)


def step_context(connection: Connection, run_id: str, step_id: str, expressions: Iterable[str]) -> dict[str, Any]:
    """Read what the `expressions` of a step refer to.

    Args:
        connection: For reading.
        run_id: The run.
        step_id: The step; an expression over all results sees those of its ancestors, which do not depend on timing.
        expressions: JMESPath texts.

    Returns:
        `input`, `results` and `states` by step key, and `workflow` with `id`, `name`, `session_id`. Steps that have not
        completed are in `states` and not in `results`.
    """
    wanted: set[str] = set()
    for expression in expressions:
        wanted |= read_expression(expression).steps
    run = connection.execute(
        select(_runs.c.input, _runs.c.name, _runs.c.session_id).where(_runs.c.id == run_id),
    ).one()
    context: dict[str, Any] = {
        "input": run.input,
        "results": {},
        "states": {},
        "workflow": {"id": run_id, "name": run.name, "session_id": run.session_id},
    }
    if wanted:
        query = select(_steps.c.key, _steps.c.status, _steps.c.result).where(_steps.c.run_id == run_id)
        if ALL in wanted:  # of a mapped step, its joined result and not its items
            query = query.where(_steps.c.id.in_(_ancestors(step_id)), _steps.c.parent_id.is_(None))
        else:
            query = query.where(_steps.c.key.in_(wanted))
        for row in connection.execute(query):
            context["states"][row.key] = row.status
            if row.status == StepState.COMPLETED.value:
                context["results"][row.key] = row.result
    return context


def _ancestors(step_id: str) -> Select[Any]:
    """Ids of the steps that a step waits for, directly or not; an item of a mapped step waits for what that waits for."""
    waits = select(func.coalesce(_steps.c.parent_id, _steps.c.id)).where(_steps.c.id == step_id).scalar_subquery()
    above = select(_dependencies.c.upstream_id).where(_dependencies.c.step_id == waits).cte("ancestors", recursive=True)
    further = select(_dependencies.c.upstream_id).join(above, _dependencies.c.step_id == above.c.upstream_id)
    return select(above.union(further).c.upstream_id)
