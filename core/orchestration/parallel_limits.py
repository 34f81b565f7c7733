"""Limits how many steps are in work at once, in a run and among the items of a mapped step.

A slot is held from an attempt's dispatch until its step has settled or waits for a person: over a retry that is coming, and over a
pause, since what was paused goes on without asking again. A step that is ready beyond the limit stays pending without an attempt,
and is started when a slot is given back. Gates and mapped steps do no work of their own and need no slot.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, func, or_, select, union_all

from interlock.core.database.tables import TRIGGER_HOLDS_EARLY, StepDependency, WorkflowStep, table_of_model
from interlock.core.model.states import StepState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import CompoundSelect, Connection, Row, Select

    from interlock.core.machine.pending_writes import NewStep
    from interlock.core.machine.run_row import LockedRun
    from interlock.core.machine.unit_of_work import UnitOfWork

__all__ = ["ParallelSlots", "ready_rows"]

_steps = table_of_model(WorkflowStep)
_dependencies = table_of_model(StepDependency)
_upstream = _steps.alias("upstream")

_HOLDS_A_SLOT = or_(
    and_(
        _steps.c.status.in_([StepState.RUNNING.value, StepState.PAUSED.value]),
        _steps.c.task_id.is_not(None),
    ),
    and_(_steps.c.status == StepState.PENDING.value, _steps.c.attempt > 0),
    # One for which something was asked while the workflow was paused gets its slot when that is done.
    and_(_steps.c.status == StepState.FAILED.value, _steps.c.retry_at.is_not(None), _steps.c.late.is_(None)),
)
_LIMIT = _steps.c.spec["map"]["max_parallel"].as_integer()
_HELD = (
    select(_steps.c.parent_id, func.count().label("held"))
    .where(_steps.c.run_id == bindparam("of_run"), _HOLDS_A_SLOT)
    .group_by(_steps.c.parent_id)
)
_COLUMNS = (_steps.c.id, _steps.c.key, _steps.c.parent_id, _steps.c.spec, _steps.c.attempt, _steps.c.position)
_UNSTARTED = (
    _steps.c.run_id == bindparam("of_run"),
    _steps.c.status == StepState.PENDING.value,
    _steps.c.attempt == 0,
)
_READY = select(*_COLUMNS).where(*_UNSTARTED, _steps.c.open_deps == 0)
_READY_ITEMS = _READY.where(_steps.c.parent_id == bindparam("of_parent"))
# `any_failed` holds with the first failure, while others are open. These are found by what has failed, which is little: the index
# of what is ready has none of them, and what is pending may be thousands.
_READY_EARLY = select(*_COLUMNS).where(
    *_UNSTARTED,
    TRIGGER_HOLDS_EARLY,
    _steps.c.id.in_(
        select(_dependencies.c.step_id)
        .join(_upstream, _upstream.c.id == _dependencies.c.upstream_id)
        .where(_upstream.c.run_id == bindparam("of_run"), _upstream.c.status == StepState.FAILED.value),
    ),
)
_READ_AHEAD = 100


class ParallelSlots:
    """The slots of one run. What is in use is read once, when a limited step first asks; what is acquired is counted here."""

    def __init__(self, unit: UnitOfWork, *, without: Sequence[str] = ()) -> None:
        """Set up; nothing is read yet.

        Args:
            unit: The run.
            without: Ids of steps whose own slots do not count.
        """
        self._unit = unit
        self._run = unit.run
        self._without = without
        self._held: Counter[str | None] | None = None

    def acquire(self, row: Row[*tuple[Any, ...]] | NewStep) -> bool:
        """Take a slot for a step (a row with `parent_id` and `spec`); False where none is free."""
        siblings = _sibling_limit(row)
        if self._run.max_parallel is None and siblings is None:
            return True
        held = self._count()
        if self._run.max_parallel is not None and held.total() >= self._run.max_parallel:
            return False
        if siblings is not None and held[row.parent_id] >= siblings:
            return False
        held[row.parent_id] += 1
        return True

    def free_among(self, parent: Row[*tuple[Any, ...]]) -> int:
        """How many children of a limited mapped step (a row with `id` and `spec`) may be started."""
        held = self._count()
        left: int = parent.spec["map"]["max_parallel"] - held[parent.id]
        return max(0, left if self._run.max_parallel is None else min(left, self._run.max_parallel - held.total()))

    def saturated_parents(self) -> list[str]:
        """Ids of the mapped steps of which as many children are in work as may be."""
        held = self._count()
        parents = [parent for parent in held if parent is not None]
        if not parents:
            return []
        limits = self._unit.connection.execute(select(_steps.c.id, _LIMIT).where(_steps.c.id.in_(parents)))
        return [parent for parent, limit in limits if limit is not None and held[parent] >= limit]

    def _count(self) -> Counter[str | None]:
        if self._held is None:
            query = _HELD.where(_steps.c.id.not_in(self._without)) if self._without else _HELD
            rows = self._unit.connection.execute(query, {"of_run": self._run.id}).all()
            self._held = Counter({row.parent_id: row.held for row in rows})
        return self._held


def ready_rows(
    connection: Connection,
    run: LockedRun,
    parent_id: str | None = None,
    *,
    without: Sequence[str] = (),
    limit: int = _READ_AHEAD,
) -> list[Row[*tuple[Any, ...]]]:
    """Steps that are ready and were left for later by a limit, the next ones first.

    Args:
        connection: A transaction that holds the run's lock.
        run: The run.
        parent_id: Only the children of this mapped step.
        without: Not the children of these: they would fill what is read ahead, and hide others that may start.
        limit: How many at most.
    """
    parameters: dict[str, Any] = {"of_run": run.id, "at_most": limit}
    query = _READY
    if parent_id is not None:
        query, parameters["of_parent"] = _READY_ITEMS, parent_id
    if without:
        query = query.where(or_(_steps.c.parent_id.is_(None), _steps.c.parent_id.not_in(without)))
    found: Select[Any] | CompoundSelect[Any] = query if parent_id is not None else union_all(query, _READY_EARLY)
    return list(connection.execute(found.order_by("position").limit(bindparam("at_most")), parameters).all())


def _sibling_limit(row: Row[*tuple[Any, ...]] | NewStep) -> int | None:
    each = (row.spec or {}).get("each")
    limit = each.get("max_parallel") if each else None
    return limit if isinstance(limit, int) else None
