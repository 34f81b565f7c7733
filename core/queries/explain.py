"""Explains why a run does not move, or what it is doing, from the database alone.

It only reads, in a fixed number of statements however large the run: the database sorts steps into kinds, and gives a few of each
and the number of the others. What only the broker knows (is the queue consumed?) is added by
`interlock.signals.dispatch.broker_inspection`.
"""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, case, false, func, or_, select, true

from interlock.core.database.tables import (
    TRIGGER_HOLDS_EARLY,
    ApprovalRequest,
    StateHistory,
    StepDependency,
    WorkflowRun,
    WorkflowStep,
    table_of_model,
)
from interlock.core.database.types import clock
from interlock.core.errors import RunNotFound, StateMachineError
from interlock.core.machine.cause import Cause
from interlock.core.machine.guard_rules import rules_of
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE

from .explain_text import (
    KINDS,
    SILENT_S,
    Step,
    deadline,
    more,
    nothing,
    of_run,
    of_step,
    silent_engine,
    summary,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Row

__all__ = ["explain"]

_MOST: Final = 20
_MOST_OF_A_KIND: Final = 5

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_history = table_of_model(StateHistory)
_requests = table_of_model(ApprovalRequest)
_dependencies = table_of_model(StepDependency)

_LIMIT = _steps.c.spec["each"]["max_parallel"].as_integer()
_STOPPED: Final = (StepState.PAUSED.value, StepState.CANCELLED.value)
_READ: Final = (
    _steps.c.id,
    _steps.c.key,
    _steps.c.task,
    _steps.c.status,
    _steps.c.position,
    _steps.c.attempt,
    _steps.c.failures,
    _steps.c.error,
    _steps.c.open_deps,
    _steps.c.claimed_by,
    _steps.c.claimed_at,
    _steps.c.carrier_id,
    _steps.c.lease_until,
    _steps.c.timeout_at,
    _steps.c.drain_until,
    _steps.c.retry_at,
    _steps.c.dispatches,
    _steps.c.dispatch_check_at,
    _steps.c.due_at,
    _steps.c.paused_by,
    _steps.c.progress,
    _steps.c.created_at,
    _steps.c.late["kind"].as_string().label("late_kind"),
    func.coalesce(_steps.c.spec["queue"].as_string(), _steps.c.spec["options"]["queue"].as_string()).label("queue"),
    _LIMIT.label("limit"),
)

# Kinds that are worth telling, by the run's state: of a paused run, for example, no queued step is due.
_SAID: Final[Mapping[str, tuple[str, ...]]] = {
    WorkflowState.EXECUTING: KINDS,
    WorkflowState.WAITING_APPROVAL: ("approval", "step_paused", "dependencies"),
    WorkflowState.PAUSED: ("failed", "draining", "approval", "step_paused"),
    WorkflowState.FAILED: ("failed", "draining"),
    WorkflowState.CANCELLED: ("draining",),
}


def explain(connection: Connection, run_id: str, session_id: str) -> dict[str, Any]:
    """Say why a run does not move, or what it is doing.

    Args:
        connection: Only read from.
        run_id: The run.
        session_id: Its session; the run of another session is not found.

    Returns:
        `run_id`, `status`, `summary` (a sentence) and `reasons`, at most some 20, the most telling first: each with `kind`,
        `step` (a key or None), `text`, and facts of its kind, times in ISO 8601. Where there are many steps of a kind, a reason
        of kind `more` has `of` (their kind) and `count` (how many are not shown).

    Raises:
        RunNotFound: No such run in this session.
    """
    query = select(_runs, clock().label("now")).where(_runs.c.id == run_id, _runs.c.session_id == session_id)
    run = connection.execute(query).one_or_none()
    if run is None:
        raise RunNotFound(run_id)
    rows = [row for row in _rows(connection, run) if row.kind in _SAID.get(run.status, ())]
    counts = {row.kind: row.total for row in rows}
    own = of_run(run, _last_move(connection, run), _refusal_of_start(connection, run), counts.get("draining", 0))
    reasons = [] if own is None else [own]
    if run.status == WorkflowState.EXECUTING:
        reasons += _silent_engine(run, rows)
    reasons += _step_reasons(connection, run, rows, counts)
    if run.status == WorkflowState.EXECUTING and not rows:
        reasons.append(nothing(run))
    if run.deadline_at is not None and run.status in (WorkflowState.EXECUTING, WorkflowState.WAITING_APPROVAL):
        reasons.append(deadline(run))
    return {"run_id": run.id, "status": run.status, "summary": summary(run, counts, reasons), "reasons": reasons}


# --- the run ---------------------------------------------------------------------------------------------------------


def _last_move(connection: Connection, run: Row[Any]) -> Row[Any] | None:
    """The history row of the run's last move into its state; None for a run without history."""
    return connection.execute(
        select(_history)
        .where(
            _history.c.entity_type == WORKFLOW_TABLE.entity_type,
            _history.c.entity_id == run.id,
            _history.c.to_state == run.status,
        )
        .order_by(_history.c.id.desc())
        .limit(1),
    ).one_or_none()


def _refusal_of_start(connection: Connection, run: Row[Any]) -> str | None:
    """What keeps a draft, or a run that is being planned, from starting now."""
    following = {WorkflowState.DRAFT: WorkflowState.PLANNING, WorkflowState.PLANNING: WorkflowState.EXECUTING}
    target = following.get(WorkflowState(run.status))
    if target is None:
        return None
    try:
        UnitOfWork.peek(connection, run.id).check_run(target, Cause("explain"))
    except StateMachineError as refusal:
        return refusal.guard
    return None


# --- its steps -------------------------------------------------------------------------------------------------------


def _kind(run: Row[Any]) -> ColumnElement[str | None]:
    """What a step waits for, as SQL; NULL for a settled one."""
    status = _steps.c.status
    ready = and_(status == StepState.PENDING.value, _steps.c.attempt == 0)
    limited = true() if run.max_parallel is not None else _LIMIT.is_not(None)
    borne = func.coalesce(_steps.c.spec["on_failure"].as_string(), "fail") == "continue"
    return case(
        (status == StepState.WAITING_APPROVAL.value, "approval"),
        (and_(status == StepState.PAUSED.value, _steps.c.paused_by.is_not(None)), "step_paused"),
        (and_(status.in_(_STOPPED), _steps.c.drain_until > clock()), "draining"),
        (and_(status == StepState.FAILED.value, _steps.c.retry_at.is_not(None)), "retry"),
        (and_(status == StepState.FAILED.value, ~borne), "failed"),
        (and_(status == StepState.RUNNING.value, _steps.c.claim_token.is_not(None)), "held"),
        (and_(status == StepState.RUNNING.value, _steps.c.task_id.is_(None)), "items"),
        (status == StepState.RUNNING.value, "queued"),
        (and_(status == StepState.PENDING.value, _steps.c.attempt > 0), "queued"),
        (and_(ready, _steps.c.open_deps > 0, ~func.coalesce(TRIGGER_HOLDS_EARLY, false())), "dependencies"),
        (and_(ready, limited), "parallel_limit"),
        (ready, "ready"),
        else_=None,
    )


def _rows(connection: Connection, run: Row[Any]) -> Sequence[Row[Any]]:
    """A few steps of each kind in plan order, each with the `total` of its kind and the kind's `earliest` timer."""
    sorted_ = select(*_READ, _kind(run).label("kind")).where(_steps.c.run_id == run.id).subquery("sorted")
    kind = sorted_.c.kind
    of_kind = (
        select(
            sorted_,
            func.min(sorted_.c.due_at).over(partition_by=kind).label("earliest"),
            func.count().over(partition_by=kind).label("total"),
            func.row_number().over(partition_by=kind, order_by=(sorted_.c.position, sorted_.c.key)).label("place"),
        )
        .where(kind.is_not(None))
        .subquery("of_kind")
    )
    query = select(of_kind).where(of_kind.c.place <= _MOST_OF_A_KIND).order_by(of_kind.c.position, of_kind.c.key)
    return connection.execute(query).all()


def _step_reasons(
    connection: Connection, run: Row[Any], rows: Sequence[Row[Any]], counts: Mapping[str, int]
) -> list[dict[str, Any]]:
    telling = sorted(rows, key=lambda row: (KINDS.index(row.kind), row.place))
    shown = telling[: _MOST - len(counts)]  # a line is kept for the others of each kind
    moves, requests = _moves(connection, shown), _open_requests(connection, [row.id for row in shown])
    waits = _dependencies_of(connection, [row.id for row in shown if row.kind in ("dependencies", "items")])
    ready_since = _ready_since(connection, [row.id for row in shown if row.kind == "queued"])
    reasons = []
    for kind, rows_of_kind in groupby(telling, key=attrgetter("kind")):
        mine = [row for row in rows_of_kind if row in shown]
        for row in mine:
            step = Step(
                row,
                run,
                move=moves.get(row.id),
                request=requests.get(row.id),
                waits_for=waits.get(row.id, []),
                ready_since=max(filter(None, (ready_since.get(row.id), run.started_at, row.created_at))),
                guard=_refusal_of_claim(connection, run, row),
            )
            reasons.append(of_step(step))
        if counts[kind] > len(mine):
            reasons.append(more(kind, counts[kind] - len(mine)))
    return reasons


def _moves(connection: Connection, rows: Sequence[Row[Any]]) -> dict[str, Any]:
    """The last move of each step, into the state that it is in."""
    states = {row.id: row.status for row in rows}
    query = (
        select(
            _history.c.entity_id,
            _history.c.to_state,
            _history.c.created_at,
            _history.c.transitioned_by,
            _history.c.transition_reason,
        )
        .where(_history.c.entity_type == STEP_TABLE.entity_type, _history.c.entity_id.in_(list(states)))
        .order_by(_history.c.id)
    )
    return {row.entity_id: row for row in connection.execute(query) if states[row.entity_id] == row.to_state}


def _open_requests(connection: Connection, ids: Sequence[str]) -> dict[str, Row[Any]]:
    """The last request of each step, decided or not, that has not taken effect."""
    query = (
        select(_requests)
        .where(_requests.c.step_id.in_(ids), _requests.c.applied.is_(False))
        .order_by(_requests.c.requested_at)
    )
    return {row.step_id: row for row in connection.execute(query)}


def _dependencies_of(connection: Connection, ids: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Key and state of the first few steps that each waits for."""
    place = func.row_number().over(partition_by=_dependencies.c.step_id, order_by=_steps.c.position)
    unsettled = or_(
        _steps.c.status.in_(["pending", "running", "paused", "waiting_approval"]),
        and_(_steps.c.status == StepState.FAILED.value, _steps.c.retry_at.is_not(None)),
    )
    open_ones = (
        select(_dependencies.c.step_id, _steps.c.key, _steps.c.status, _steps.c.position, place.label("place"))
        .join(_steps, _steps.c.id == _dependencies.c.upstream_id)
        .where(_dependencies.c.step_id.in_(ids), unsettled)
        .subquery("open_ones")
    )
    query = select(open_ones).where(open_ones.c.place <= _MOST_OF_A_KIND).order_by(open_ones.c.position)
    found: dict[str, list[tuple[str, str]]] = {}
    for row in connection.execute(query):
        found.setdefault(row.step_id, []).append((row.key, row.status))
    return found


def _ready_since(connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
    """When the last dependency of each step settled."""
    query = (
        select(_dependencies.c.step_id, func.max(_steps.c.completed_at).label("at"))
        .join(_steps, _steps.c.id == _dependencies.c.upstream_id)
        .where(_dependencies.c.step_id.in_(ids))
        .group_by(_dependencies.c.step_id)
    )
    return {row.step_id: row.at for row in connection.execute(query)}


def _refusal_of_claim(connection: Connection, run: Row[Any], row: Row[Any]) -> str | None:
    """The guard that would refuse a worker's claim of the step now."""
    if (row.kind, row.status) != ("queued", StepState.PENDING) or not rules_of(connection):
        return None
    try:
        UnitOfWork.peek(connection, run.id).check_step(row.id, StepState.RUNNING, Cause("explain"))
    except StateMachineError as refusal:
        return refusal.guard
    return None


def _silent_engine(run: Row[Any], rows: Iterable[Row[Any]]) -> list[dict[str, Any]]:
    """The reason that no engine sweeps this database, where a timer has been over for longer than `SILENT_S`."""
    due = min(filter(None, (run.due_at, *(row.earliest for row in rows))), default=run.now)
    return [silent_engine(run, due)] if (run.now - due).total_seconds() > SILENT_S else []
