"""Maintains the counters of a step's dependencies (open, unmet, failed), by which `readiness` decides.

A step that settles is counted down in its dependents. Where steps settled while nobody counted (a paused run, a step moved by
hand), the counters are computed afresh from the plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, and_, bindparam, case, false, func, or_, select, update

from interlock.core.database.tables import StepDependency, WorkflowStep, table_of_model
from interlock.core.model.readiness import is_settled
from interlock.core.model.states import StepState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

__all__ = ["IS_OPEN", "UNSETTLED", "count_down", "count_open", "recount"]

UNSETTLED = tuple(state for state in StepState if not is_settled(state))

_steps = table_of_model(WorkflowStep)
_dependencies = table_of_model(StepDependency)
_upstream = _steps.alias("upstream")

# Pending steps count their predecessors; mapped ones (running without an attempt) count their items and nothing else, because one
# that began by `any_failed` may have predecessors that are still to settle.
# coalesce(), because the steps are known by their ids: by an index on the state, PostgreSQL would read every pending step there is
# wherever it has kept a plan from when there were few.
_status = func.coalesce(_steps.c.status, "")
_PENDING = _status == StepState.PENDING.value
_COUNTING = or_(_PENDING, and_(_status == StepState.RUNNING.value, _steps.c.task_id.is_(None)))
_IS_ITEM = func.coalesce(_upstream.c.parent_id == _dependencies.c.step_id, false(), type_=Boolean)

#: A step that is not settled.
IS_OPEN = or_(
    _steps.c.status.in_([state.value for state in UNSETTLED]),
    and_(_steps.c.status == StepState.FAILED.value, _steps.c.retry_at.is_not(None)),
)
_COMPLETED = _upstream.c.status == StepState.COMPLETED.value
_FAILED = _upstream.c.status == StepState.FAILED.value
_OPEN = or_(
    _upstream.c.status.in_([state.value for state in UNSETTLED]),
    and_(_FAILED, _upstream.c.retry_at.is_not(None)),
)


_news = (
    select(
        _dependencies.c.step_id,
        _IS_ITEM.label("of_items"),
        func.count().label("total"),
        func.sum(case((_COMPLETED, 0), else_=1)).label("unmet"),
        func.sum(case((_FAILED, 1), else_=0)).label("failed"),
    )
    .join(_upstream, _upstream.c.id == _dependencies.c.upstream_id)
    .where(_dependencies.c.upstream_id.in_(bindparam("settled", expanding=True)))
    .group_by(_dependencies.c.step_id, _IS_ITEM)
    .subquery("news")
)
_COUNT_DOWN = (
    update(_steps)
    .where(_steps.c.id == _news.c.step_id, _COUNTING, or_(_PENDING, _news.c.of_items))
    .values(
        open_deps=_steps.c.open_deps - _news.c.total,
        unmet_deps=_steps.c.unmet_deps + _news.c.unmet,
        failed_deps=_steps.c.failed_deps + _news.c.failed,
    )
    .returning(
        _steps.c.id,
        _steps.c.key,
        _steps.c.position,
        _steps.c.parent_id,
        _steps.c.status,
        _steps.c.attempt,
        _steps.c.spec,
        _steps.c.open_deps,
        _steps.c.unmet_deps,
        _steps.c.failed_deps,
    )
)


def count_down(connection: Connection, settled: Sequence[str]) -> Sequence[Row[Any]]:
    """Count steps that have just settled down in their dependents.

    Args:
        connection: A transaction that holds the run's lock.
        settled: Ids of the steps; each is counted once in its life.

    Returns:
        The dependents in the plan's order, with `id`, `key`, `attempt`, `spec` and the new counters.
    """
    # PostgreSQL returns updated rows as it meets them, and whoever comes first gets the free slot of a limit.
    rows = connection.execute(_COUNT_DOWN, {"settled": list(settled)})
    return sorted(rows, key=lambda row: row.position)


def count_open(connection: Connection, run_id: str) -> int:
    """How many of the run's steps are not settled."""
    return connection.scalar(select(func.count()).where(_steps.c.run_id == run_id, IS_OPEN)) or 0


def recount(connection: Connection, run_id: str) -> None:
    """Compute the counters of the run's pending and mapped steps afresh, in one statement."""
    truth = (
        select(
            _dependencies.c.step_id,
            _IS_ITEM.label("of_items"),
            func.sum(case((_OPEN, 1), else_=0)).label("open"),
            func.sum(case((or_(_OPEN, _COMPLETED), 0), else_=1)).label("unmet"),
            func.sum(case((and_(_FAILED, _upstream.c.retry_at.is_(None)), 1), else_=0)).label("failed"),
        )
        .join(_upstream, _upstream.c.id == _dependencies.c.upstream_id)
        .where(_dependencies.c.run_id == run_id)
        .group_by(_dependencies.c.step_id, _IS_ITEM)
        .subquery("truth")
    )
    connection.execute(
        update(_steps)
        .where(_steps.c.id == truth.c.step_id, _COUNTING, or_(_PENDING, truth.c.of_items))
        .values(open_deps=truth.c.open, unmet_deps=truth.c.unmet, failed_deps=truth.c.failed),
    )
