"""How many steps may be in work at once, in a run and among the children of a mapped step.

In work is what has been dispatched and has not ended: a pending step with an attempt, or a running one. What is ready beyond the
limit stays pending without an attempt, and is started when others settle.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, or_, select

from .models import WorkflowStep, table_of_model
from .states import StepState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from .unit_of_work import LockedRun

__all__ = ["is_limited", "ready_rows", "within_limits"]

_steps = table_of_model(WorkflowStep)

_IN_WORK = and_(
    _steps.c.task_id.is_not(None),
    or_(
        _steps.c.status == StepState.RUNNING.value,
        and_(_steps.c.status == StepState.PENDING.value, _steps.c.attempt > 0),
    ),
)
_READ_AHEAD = 100


def is_limited(run: LockedRun, rows: Sequence[Row[*tuple[Any, ...]]]) -> bool:
    """Whether a limit holds for any of the steps."""
    return run.max_parallel is not None or any(_sibling_limit(row) is not None for row in rows)


def within_limits(
    connection: Connection,
    run: LockedRun,
    rows: Sequence[Row[*tuple[Any, ...]]],
) -> list[Row[*tuple[Any, ...]]]:
    """The first of `rows` (steps that are ready, with `id`, `parent_id` and `spec`) that the limits let start now."""
    if not is_limited(run, rows):
        return list(rows)
    counted = connection.execute(
        select(_steps.c.parent_id, func.count())
        .where(_steps.c.run_id == run.id, _IN_WORK)
        .group_by(_steps.c.parent_id),
    ).all()
    by_parent: Counter[str | None] = Counter({row[0]: row[1] for row in counted})
    total = by_parent.total()
    starting: list[Row[*tuple[Any, ...]]] = []
    for row in rows:
        if run.max_parallel is not None and total >= run.max_parallel:
            break
        siblings = _sibling_limit(row)
        if siblings is not None and by_parent[row.parent_id] >= siblings:
            continue
        starting.append(row)
        by_parent[row.parent_id] += 1
        total += 1
    return starting


def ready_rows(
    connection: Connection,
    run: LockedRun,
    parent_id: str | None = None,
    *,
    limit: int = _READ_AHEAD,
) -> list[Row[*tuple[Any, ...]]]:
    """Steps that are ready and were left for later by a limit, the next ones first."""
    query = (
        select(_steps.c.id, _steps.c.key, _steps.c.parent_id, _steps.c.spec, _steps.c.attempt)
        .where(
            _steps.c.run_id == run.id,
            _steps.c.status == StepState.PENDING.value,
            _steps.c.attempt == 0,
            _steps.c.open_deps == 0,
        )
        .order_by(_steps.c.position)
        .limit(limit)
    )
    if parent_id is not None:
        query = query.where(_steps.c.parent_id == parent_id)
    return list(connection.execute(query).all())


def _sibling_limit(row: Row[*tuple[Any, ...]]) -> int | None:
    each = (row.spec or {}).get("each")
    limit = each.get("max_parallel") if each else None
    return limit if isinstance(limit, int) else None
