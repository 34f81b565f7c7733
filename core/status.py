"""Answers about runs, as JSON: one run with its steps, a list of runs, results. Reading only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from .columns import clock
from .models import StepDependency, WorkflowRun, WorkflowStep, table_of_model
from .states import StepState
from .transitions import WORKFLOW_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = ["RunFilter", "list_runs", "run_results", "run_status"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_dependencies = table_of_model(StepDependency)


def run_status(connection: Connection, run_id: str, session_id: str) -> dict[str, Any] | None:
    """Describe a run.

    Returns:
        None where the session has no such run; else a dict with `run_id`, `name`, `session_id`, `status`,
        `task_description`, `error`, `created_at`, `started_at`, `completed_at` (ISO 8601, UTC), `seq`, `pause` (mode, by
        and steps that still drain; None while not paused), `allowed_transitions`, `counts` (steps by state), and `steps` in
        plan order, each with `key`, `status`, `task`, `after`, `attempt`, `error`, `started_at`, `completed_at`,
        `claimed_by`, `progress`.
    """
    query = select(_runs).where(_runs.c.id == run_id, _runs.c.session_id == session_id)
    run = connection.execute(query).mappings().one_or_none()
    if run is None:
        return None
    rows = connection.execute(
        select(_steps, (_steps.c.drain_until > clock()).label("draining"))
        .where(_steps.c.run_id == run_id)
        .order_by(_steps.c.position, _steps.c.key),
    ).all()
    after = _after(connection, run_id)
    counts = {state.value: 0 for state in StepState}
    for row in rows:
        counts[row.status] += 1
    state = WORKFLOW_TABLE.parse(run["status"])
    return {
        **_run_document(run),
        "seq": run["seq"],
        "pause": _pause(run, rows),
        "allowed_transitions": [target.value for target in WORKFLOW_TABLE.targets[state]],
        "counts": {name: count for name, count in counts.items() if count},
        "steps": [_step_document(row, after.get(row.id, [])) for row in rows],
    }


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None does not restrict.

    Attributes:
        status: State of the run.
        name: Name of its workflow.
        created_after: Earliest time of creation.
        created_before: Latest time of creation.
        limit: How many at most, newest first.
    """

    status: str | None = None
    name: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    limit: int = 50


def list_runs(connection: Connection, session_id: str, wanted: RunFilter) -> list[dict[str, Any]]:
    """List a session's runs, newest first, each with the number of its steps and of those that have completed."""
    query = select(_runs).where(_runs.c.session_id == session_id)
    if wanted.status is not None:
        query = query.where(_runs.c.status == WORKFLOW_TABLE.parse(wanted.status).value)
    if wanted.name is not None:
        query = query.where(_runs.c.name == wanted.name)
    if wanted.created_after is not None:
        query = query.where(_runs.c.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(_runs.c.created_at < wanted.created_before)
    runs = (
        connection.execute(query.order_by(_runs.c.created_at.desc(), _runs.c.id).limit(wanted.limit)).mappings().all()
    )
    counted = {
        row.run_id: row
        for row in connection.execute(
            select(
                _steps.c.run_id,
                func.count().label("total"),
                func.count().filter(_steps.c.status == StepState.COMPLETED.value).label("completed"),
            )
            .where(_steps.c.run_id.in_([run["id"] for run in runs]))
            .group_by(_steps.c.run_id),
        )
    }
    return [
        {
            **_run_document(run),
            "steps": counted[run["id"]].total if run["id"] in counted else 0,
            "steps_completed": counted[run["id"]].completed if run["id"] in counted else 0,
        }
        for run in runs
    ]


def run_results(connection: Connection, run_id: str, step: str | None = None) -> dict[str, Any]:
    """Results by step key: of `step`, or of every completed step that no other waits for."""
    query = select(_steps.c.key, _steps.c.result).where(
        _steps.c.run_id == run_id,
        _steps.c.status == StepState.COMPLETED.value,
    )
    if step is not None:
        query = query.where(_steps.c.key == step)
    else:
        query = query.where(
            _steps.c.id.not_in(select(_dependencies.c.upstream_id).where(_dependencies.c.run_id == run_id))
        )
    return {row.key: row.result for row in connection.execute(query.order_by(_steps.c.position))}


def _after(connection: Connection, run_id: str) -> dict[str, list[str]]:
    upstream = _steps.alias("upstream")
    edges = connection.execute(
        select(_dependencies.c.step_id, upstream.c.key)
        .join(upstream, upstream.c.id == _dependencies.c.upstream_id)
        .where(_dependencies.c.run_id == run_id)
        .order_by(upstream.c.position),
    )
    after: dict[str, list[str]] = {}
    for step_id, key in edges:
        after.setdefault(step_id, []).append(key)
    return after


def _pause(run: Mapping[Any, Any], rows: list[Row[*tuple[Any, ...]]] | Any) -> dict[str, Any] | None:
    if run["pause_mode"] is None or run["paused_at"] is None:
        return None
    return {
        "mode": run["pause_mode"],
        "by": run["paused_by"],
        "at": _iso(run["paused_at"]),
        "draining": sum(1 for row in rows if row.status == StepState.PAUSED.value and row.draining),
    }


def _run_document(run: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "run_id": run["id"],
        "name": run["name"],
        "session_id": run["session_id"],
        "status": run["status"],
        "task_description": run["task_description"],
        "error": run["error"],
        "created_at": _iso(run["created_at"]),
        "started_at": _iso(run["started_at"]),
        "completed_at": _iso(run["completed_at"]),
    }


def _step_document(row: Row[*tuple[Any, ...]], after: list[str]) -> dict[str, Any]:
    return {
        "key": row.key,
        "step_id": row.id,
        "status": row.status,
        "task": row.task,
        "after": after,
        "attempt": row.attempt,
        "error": row.error,
        "started_at": _iso(row.started_at),
        "completed_at": _iso(row.completed_at),
        "claimed_by": row.claimed_by,
        "progress": row.progress,
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
