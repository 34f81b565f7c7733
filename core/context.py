"""What a step's expressions see: input, results and states, read only as far as the expressions refer to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from .expressions import ALL, read_expression, render
from .models import WorkflowRun, WorkflowStep
from .states import StepState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

__all__ = ["render_arguments", "step_context"]

_runs = WorkflowRun.__table__
_steps = WorkflowStep.__table__


def step_context(connection: Connection, run_id: str, expressions: Iterable[str]) -> dict[str, Any]:
    """Read what `expressions` refer to.

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
        if ALL not in wanted:
            query = query.where(_steps.c.key.in_(wanted))
        for row in connection.execute(query):
            context["states"][row.key] = row.status
            if row.status == StepState.COMPLETED.value:
                context["results"][row.key] = row.result
    return context


def render_arguments(
    connection: Connection,
    run_id: str,
    spec: Mapping[str, Any],
    expressions: Iterable[str],
) -> tuple[list[Any], dict[str, Any]]:
    """Replace the expressions in a step's `args` and `kwargs`.

    Args:
        connection: For reading what the expressions refer to.
        run_id: The run.
        spec: The step's stored spec.
        expressions: Those inside its arguments.

    Raises:
        ExpressionError: One of them cannot be evaluated.
    """
    context = step_context(connection, run_id, expressions)
    return render(spec.get("args", []), context), render(spec.get("kwargs", {}), context)
