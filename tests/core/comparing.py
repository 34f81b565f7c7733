"""A run as its rows say it and as its model says it, in one form."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from interlock.core.database.tables import ApprovalRequest, WorkflowRun, WorkflowStep
from interlock.core.database.types import clock
from interlock.core.model.states import StepState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from interlock.core import Database
    from tests.model.run import Run

__all__ = ["modelled", "ordinal", "paths", "stored"]

_runs, _steps, _requests = WorkflowRun.__table__, WorkflowStep.__table__, ApprovalRequest.__table__


def modelled(run: Run, results: Mapping[str, Any]) -> dict[str, Any]:
    """The same as the model says; `results` are those that were accepted."""
    found: dict[str, Any] = {"run": (run.state, run.open_steps, run.waiting_steps)}
    for key, one in run.steps.items():
        counts = (one.counts.open, one.counts.unmet, one.counts.failed)
        found[key] = {
            "state": one.state,
            "attempt": (one.attempt, one.task),
            "claim": one.claim,
            "drain": (one.drain, one.drain_task, one.drain_over),
            "counts": counts if one.state is StepState.PENDING else None,
            "tally": (one.tally.failures, one.tally.lost, one.tally.celery_retries),
            "timers": (one.retry_due, one.send_due),
            "late": one.late,
            "own pause": one.own_pause,
            "request": one.request,
            "result": results[key] if one.state is StepState.COMPLETED else None,
        }
    return found


def stored(database: Database, run_id: str) -> dict[str, Any]:
    """What the rows of a run say, as far as the model says it too."""
    over = (_steps.c.drain_until <= clock()).label("drain_over")
    with database.reading() as connection:
        run = connection.execute(select(_runs).where(_runs.c.id == run_id)).one()
        steps = connection.execute(select(_steps, over).where(_steps.c.run_id == run_id)).all()
        requests = connection.execute(select(_requests).where(_requests.c.run_id == run_id)).all()
    asked = {request.step_id: request.decision or "open" for request in requests}
    found: dict[str, Any] = {"run": (run.status, run.open_steps, run.waiting_steps)}
    for row in steps:
        counts = (row.open_deps, row.unmet_deps, row.failed_deps)
        found[row.key] = {
            "state": row.status,
            "attempt": (row.attempt, ordinal(row.task_id)),
            "claim": row.claim_token,
            "drain": (row.drain_token, ordinal(row.drain_task_id), bool(row.drain_over)),
            "counts": counts if row.status == StepState.PENDING else None,
            "tally": (row.failures, row.losses, row.celery_retries),
            "timers": (row.retry_at is not None, row.dispatch_check_at is not None),
            "late": _late(row.late),
            "own pause": row.paused_by is not None,
            "request": asked.get(row.id),
            "result": _result(row.result) if row.status == StepState.COMPLETED else None,
        }
    return found


def ordinal(task_id: str | None) -> int:
    """Which attempt a Celery id is of; 0 for none."""
    return 0 if task_id is None else int(task_id.rpartition(".")[2])


def _late(late: dict[str, Any] | None) -> str | None:
    if late is None:
        return None
    return str(late["failure"]["cause"] if late["kind"] == "failed" else late["kind"])


def _result(result: Any) -> Any:
    return result["decision"] if isinstance(result, dict) and "decision" in result else result


def paths(moves: list[tuple[Any, Any, Any]]) -> dict[str | None, list[tuple[str, str]]]:
    """The moves of each entity, in their order; that of a set of steps means nothing."""
    paths = defaultdict(list)
    for key, source, target in moves:
        paths[key].append((str(source), str(target)))
    return paths
