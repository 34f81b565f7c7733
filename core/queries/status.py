"""Answers about runs, as JSON: one run with its steps, a list of runs, results. Reading only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, case, func, or_, select

from interlock.core.database.tables import (
    ApprovalRequest,
    StateHistory,
    StepDependency,
    WorkflowRun,
    WorkflowStep,
    table_of_model,
)
from interlock.core.database.types import clock, seconds_between
from interlock.core.json_values import json_size
from interlock.core.model.states import StepState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row

__all__ = ["RunFilter", "list_runs", "run_results", "run_status"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_dependencies = table_of_model(StepDependency)
_history = table_of_model(StateHistory)
_requests = table_of_model(ApprovalRequest)

# Not the results and the arguments: ten thousand steps may have a mebibyte each.
_READ = (
    _steps.c.id,
    _steps.c.key,
    _steps.c.position,
    _steps.c.parent_id,
    _steps.c.status,
    _steps.c.task,
    _steps.c.attempt,
    _steps.c.failures,
    _steps.c.losses,
    _steps.c.error,
    _steps.c.started_at,
    _steps.c.completed_at,
    _steps.c.claimed_by,
    _steps.c.progress,
    (_steps.c.drain_until > clock()).label("draining"),
)


def run_status(connection: Connection, run_id: str, session_id: str) -> dict[str, Any] | None:
    """Describe a run, in a fixed number of statements.

    Returns:
        None where the session has no such run; else a dict with `run_id`, `name`, `session_id`, `status`,
        `task_description`, `error`, `created_at`, `started_at`, `completed_at`, `deadline_at` (ISO 8601, UTC), `forked_from`,
        `input_bytes` (size of the input as JSON), `seq`, `pause` (mode, by, at and steps that still drain; None while not
        paused), `allowed_transitions`, `counts` (steps by state), and `steps` in plan order, the items of a mapped step right
        behind it. Each step has `key`, `step_id`, `status`, `task`, `after`, `attempt`, `attempts` (attempt, failures, losses),
        `durations` (seconds in each state so far; the last one does not count once the step is settled), `error`, `started_at`,
        `completed_at`, `claimed_by`, `progress`, and `waiting_for`: the approval it waits for (request_id, prompt, approvers,
        requested_at, deadline_at, decision), else None.
    """
    query = select(_runs).where(_runs.c.id == run_id, _runs.c.session_id == session_id)
    run = connection.execute(query).mappings().one_or_none()
    if run is None:
        return None
    rows = _behind_parents(
        connection.execute(
            select(*_READ).where(_steps.c.run_id == run_id).order_by(_steps.c.position, _steps.c.key),
        ).all(),
    )
    facts = _StepFacts(_after(connection, run_id), _durations(connection, run_id), _waiting(connection, run_id))
    counts = {state.value: 0 for state in StepState}
    for row in rows:
        counts[row.status] += 1
    state = WORKFLOW_TABLE.parse(run["status"])
    return {
        **_run_document(run),
        "deadline_at": _iso(run["deadline_at"]),
        "input_bytes": 0 if run["input"] is None else json_size(run["input"]),
        "seq": run["seq"],
        "pause": _pause(run, rows),
        "allowed_transitions": [target.value for target in WORKFLOW_TABLE.targets[state]],
        "counts": {name: count for name, count in counts.items() if count},
        "steps": [_step_document(row, facts) for row in rows],
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


@dataclass(frozen=True, slots=True)
class _StepFacts:
    """What other tables know of a run's steps, by step id."""

    after: Mapping[str, list[str]]
    durations: Mapping[str, dict[str, float]]
    waiting: Mapping[str, dict[str, Any]]


def _behind_parents(rows: Sequence[Row[*tuple[Any, ...]]]) -> list[Row[*tuple[Any, ...]]]:
    """Plan order, with the items of a mapped step (stored behind all steps) right behind it."""
    items: dict[str | None, list[Row[*tuple[Any, ...]]]] = {}
    for row in rows:
        items.setdefault(row.parent_id, []).append(row)
    ordered = []
    for row in items.pop(None, []):
        ordered += [row, *items.pop(row.id, [])]
    return ordered + [row for left in items.values() for row in left]


def _durations(connection: Connection, run_id: str) -> dict[str, dict[str, float]]:
    """Seconds that each step has been in each state, summed by the database over the run's history."""
    stays = (
        select(
            _history.c.entity_id,
            _history.c.to_state,
            _history.c.created_at,
            func.lead(_history.c.created_at)
            .over(partition_by=_history.c.entity_id, order_by=_history.c.seq)
            .label("left_at"),
        )
        .where(_history.c.workflow_id == run_id, _history.c.entity_type == STEP_TABLE.entity_type)
        .subquery("stays")
    )
    until = func.coalesce(stays.c.left_at, case((_goes_on(), clock())))
    query = (
        select(stays.c.entity_id, stays.c.to_state, func.sum(seconds_between(stays.c.created_at, until)))
        .join(_steps, _steps.c.id == stays.c.entity_id)
        .where(until.is_not(None))
        .group_by(stays.c.entity_id, stays.c.to_state)
    )
    found: dict[str, dict[str, float]] = {}
    for step_id, state, seconds in connection.execute(query):
        found.setdefault(step_id, {})[state] = round(max(float(seconds), 0.0), 3)
    return found


def _goes_on() -> ColumnElement[bool]:
    """The step is not settled, so that the time in its state still runs."""
    failed = StepState.FAILED
    settled = [state.value for state in (*STEP_TABLE.terminal, failed)]
    return or_(_steps.c.status.not_in(settled), and_(_steps.c.status == failed.value, _steps.c.retry_at.is_not(None)))


def _waiting(connection: Connection, run_id: str) -> dict[str, dict[str, Any]]:
    """The request of each step that waits for a person, or for its decision to take effect."""
    query = (
        select(_requests)
        .join(_steps, _steps.c.id == _requests.c.step_id)
        .where(
            _requests.c.run_id == run_id,
            _requests.c.applied.is_(False),
            _steps.c.status == StepState.WAITING_APPROVAL.value,
        )
        .order_by(_requests.c.requested_at)
    )
    return {row.step_id: _request_document(row) for row in connection.execute(query)}


def _request_document(row: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    spec = row.spec or {}
    return {
        "request_id": row.id,
        "prompt": spec.get("prompt"),
        "approvers": list(spec.get("approvers") or ()),
        "requested_at": _iso(row.requested_at),
        "deadline_at": _iso(row.deadline_at),
        "decision": row.decision,
    }


def _pause(run: Mapping[Any, Any], rows: Sequence[Row[*tuple[Any, ...]]]) -> dict[str, Any] | None:
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
        "forked_from": run["forked_from"],
    }


def _step_document(row: Row[*tuple[Any, ...]], facts: _StepFacts) -> dict[str, Any]:
    return {
        "key": row.key,
        "step_id": row.id,
        "status": row.status,
        "task": row.task,
        "after": facts.after.get(row.id, []),
        "attempt": row.attempt,
        "attempts": {"attempt": row.attempt, "failures": row.failures, "losses": row.losses},
        "durations": facts.durations.get(row.id, {}),
        "error": row.error,
        "started_at": _iso(row.started_at),
        "completed_at": _iso(row.completed_at),
        "claimed_by": row.claimed_by,
        "progress": row.progress,
        "waiting_for": facts.waiting.get(row.id),
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
