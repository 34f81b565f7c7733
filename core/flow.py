"""What follows a move, in set-based SQL: counters, skips, starts, the end of the run.

`advance` decides; this module carries it out for whole sets of steps under the run's lock. It looks at the steps that changed
and at their dependents, never at the whole plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import String, and_, case, cast, func, literal, or_, select, update

from .advance import DependencyCounts, Readiness, readiness
from .columns import clock, seconds_after
from .context import step_context
from .counters import UNSETTLED, count_down, recount
from .errors import ExpressionError
from .events import Dispatch, Interrupt
from .expressions import truthy
from .models import ApprovalRequest, WorkflowStep, table_of_model
from .states import StepState, WorkflowState
from .unit_of_work import Cause

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Row

    from .events import StateChange
    from .settings import Settings
    from .unit_of_work import UnitOfWork

__all__ = ["CLEARED", "DISPATCH_COLUMNS", "ENGINE", "LET_GO", "UNSETTLED", "Flow"]

ENGINE = "engine"

_CHUNK = 5_000  # ids in one statement; SQLite takes 32,766 parameters, PostgreSQL 65,535

_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)

#: What `Flow.dispatch` needs of a step.
DISPATCH_COLUMNS = (
    _steps.c.id,
    _steps.c.key,
    _steps.c.task,
    _steps.c.task_id,
    _steps.c.attempt,
    _steps.c.celery_retries,
    _steps.c.spec,
    _steps.c.override,
    _steps.c.drain_token,
)

_DRAINING = _steps.c.drain_until > clock()

#: Columns to write when a step stops running: its claim becomes a draining one, and every timer stops.
LET_GO: dict[str, Any] = {
    "drain_task_id": case((_steps.c.claim_token.is_not(None), _steps.c.task_id), else_=_steps.c.drain_task_id),
    "drain_token": func.coalesce(_steps.c.claim_token, _steps.c.drain_token),
    "drain_until": func.coalesce(_steps.c.lease_until, _steps.c.drain_until),
    "claim_token": None,
    "claimed_by": None,
    "claimed_at": None,
    "lease_until": None,
    "timeout_at": None,
    "retry_at": None,
    "dispatch_check_at": None,
}

#: The same for a step whose attempt has ended: nothing is left to drain.
CLEARED: dict[str, Any] = {
    **LET_GO,
    "drain_task_id": None,
    "drain_token": None,
    "drain_until": None,
}


class Flow:
    """Consequences within one unit of work."""

    def __init__(self, unit: UnitOfWork, settings: Settings) -> None:
        self.unit = unit
        self.settings = settings

    # --- starting ----------------------------------------------------------------------------------------------------

    def start_roots(self) -> None:
        """Start every step that waits for nothing; called once, when the run begins to execute."""
        rows = self.unit.connection.execute(
            select(_steps.c.id, _steps.c.spec, _steps.c.key)
            .where(
                _steps.c.run_id == self.unit.run.id,
                _steps.c.status == StepState.PENDING.value,
                _steps.c.open_deps == 0,
            )
            .order_by(_steps.c.position),
        ).all()
        self._propagate(self._start_or_skip(rows, []))
        self.finish_run()

    def readvance(self) -> None:
        """Recount the dependencies, start every pending step whose trigger holds, and end the run if nothing is left.

        What normally follows a move in its own transaction; for what settled while paused, and for runs that were moved
        by other code than the controller.
        """
        recount(self.unit.connection, self.unit.run.id)
        rows = self.unit.connection.execute(
            select(
                _steps.c.id,
                _steps.c.key,
                _steps.c.spec,
                _steps.c.open_deps,
                _steps.c.unmet_deps,
                _steps.c.failed_deps,
            )
            .where(
                _steps.c.run_id == self.unit.run.id,
                _steps.c.status == StepState.PENDING.value,
                _steps.c.dispatch_check_at.is_(None),
            )
            .order_by(_steps.c.position),
        ).all()
        ready = [row for row in rows if _readiness(row) is Readiness.START]
        hopeless = [row.id for row in rows if _readiness(row) is Readiness.SKIP]
        self._propagate(self._start_or_skip(ready, hopeless))
        self.unit.run.open_steps = self.count_open()
        self.finish_run()

    def count_open(self) -> int:
        """Count the steps that are not settled."""
        return (
            self.unit.connection.scalar(
                select(func.count()).where(
                    _steps.c.run_id == self.unit.run.id,
                    or_(
                        _steps.c.status.in_([state.value for state in UNSETTLED]),
                        and_(_steps.c.status == StepState.FAILED.value, _steps.c.retry_at.is_not(None)),
                    ),
                ),
            )
            or 0
        )

    def new_attempt(self) -> dict[str, Any]:
        """Columns of a fresh attempt with an id of its own; a draining predecessor delays its dispatch."""
        attempt = _steps.c.attempt + 1
        return {
            "attempt": attempt,
            "task_id": cast(_steps.c.id, String) + literal(".") + cast(attempt, String),
            "claim_token": None,
            "claimed_by": None,
            "claimed_at": None,
            "lease_until": None,
            "timeout_at": None,
            "retry_at": None,
            "dispatches": 1,
            "dispatch_check_at": case(
                (_DRAINING, _steps.c.drain_until),
                else_=seconds_after(self.settings.redispatch_s),
            ),
            "drain_task_id": case((_DRAINING, _steps.c.drain_task_id)),
            "drain_token": case((_DRAINING, _steps.c.drain_token)),
            "drain_until": case((_DRAINING, _steps.c.drain_until)),
        }

    def begin_attempts(self, *conditions: ColumnElement[bool], **values: Any) -> None:
        """Give the steps that meet `conditions` a new attempt, and have it dispatched after the commit."""
        rows = self.unit.connection.execute(
            update(_steps)
            .where(_steps.c.run_id == self.unit.run.id, *conditions)
            .values(**{**self.new_attempt(), **values})
            .returning(*DISPATCH_COLUMNS),
        ).all()
        self.dispatch(rows)

    def dispatch(self, rows: Iterable[Row[*tuple[Any, ...]]]) -> None:
        """Have the attempts in `rows` published after the commit; one that waits for its predecessor is left to the sweeper."""
        run = self.unit.run
        self.unit.effects.dispatches += [
            Dispatch(
                run_id=run.id,
                session_id=run.session_id,
                step_id=row.id,
                key=row.key,
                task=row.task,
                task_id=row.task_id,
                attempt=row.attempt,
                celery_retries=row.celery_retries,
                spec=row.spec or {},
                override=row.override,
            )
            for row in rows
            if row.drain_token is None
        ]

    # --- settling ----------------------------------------------------------------------------------------------------

    def settled(self, step_ids: Sequence[str]) -> None:
        """Apply what follows from steps that have just settled, up to the end of the run."""
        self.unit.run.open_steps -= len(step_ids)
        if self.unit.run.status is WorkflowState.EXECUTING:
            self._propagate(step_ids)
            self.finish_run()

    def _propagate(self, settled: Sequence[str]) -> None:
        while settled:
            waiting = [row for row in self._count_down(settled) if row.attempt == 0]
            decided = [(row, _readiness(row)) for row in waiting]
            ready = [row for row, decision in decided if decision is Readiness.START]
            hopeless = [row.id for row, decision in decided if decision is Readiness.SKIP]
            settled = self._start_or_skip(ready, hopeless)

    def _count_down(self, settled: Sequence[str]) -> Iterator[Row[*tuple[Any, ...]]]:
        for ids in _chunks(settled):
            yield from count_down(self.unit.connection, ids)

    def _start_or_skip(self, ready: Sequence[Row[*tuple[Any, ...]]], hopeless: list[str]) -> list[str]:
        """Start what is ready, skip what cannot start or is not wanted; returns the ids of those that have settled."""
        starting: list[str] = []
        unwanted: list[str] = []
        failed: list[str] = []
        for row in ready:
            condition = (row.spec or {}).get("when")
            if condition is None:
                starting.append(row.id)
                continue
            try:
                wanted = truthy(condition, step_context(self.unit.connection, self.unit.run.id, row.id, [condition]))
            except ExpressionError as error:
                # Not through `settled`: that would come back here with rows that this call has decided about already.
                self._fail_pending(row.id, f"when: {error.detail}")
                if (row.spec or {}).get("on_failure") != "continue":
                    self.step_failed(row.id, f"when: {error.detail}")
                    return []  # the run is paused (resuming looks at all pending steps again) or has ended
                self.unit.run.open_steps -= 1
                failed.append(row.id)
                continue
            (starting if wanted else unwanted).append(row.id)
        for ids in _chunks(starting):
            self.begin_attempts(_steps.c.id.in_(ids), _steps.c.status == StepState.PENDING.value)
        self._skip(hopeless, "a dependency did not complete as its trigger needs")
        self._skip(unwanted, "its condition is false")
        return hopeless + unwanted + failed

    def _skip(self, ids: Sequence[str], reason: str) -> None:
        for chunk in _chunks(ids):
            changes = self.unit.move_steps(
                StepState.SKIPPED,
                Cause(ENGINE, reason),
                _steps.c.id.in_(chunk),
                completed_at=clock(),
            )
            self.unit.run.open_steps -= len(changes)

    # --- failing and ending ------------------------------------------------------------------------------------------

    def fail_unstarted(self, step_id: str, message: str) -> None:
        """Fail a step that cannot even start: pending → running → failed, with what follows."""
        self._fail_pending(step_id, message)
        self.step_failed(step_id, message)

    def _fail_pending(self, step_id: str, message: str) -> None:
        cause = Cause(ENGINE, message)
        self.unit.move_steps(
            StepState.RUNNING,
            cause,
            _steps.c.id == step_id,
            _steps.c.status == StepState.PENDING.value,
            attempt=_steps.c.attempt + 1,
            started_at=func.coalesce(_steps.c.started_at, clock()),
        )
        self.unit.move_steps(
            StepState.FAILED, cause, _steps.c.id == step_id, **CLEARED, error=message, completed_at=clock()
        )

    def step_failed(self, step_id: str, message: str) -> None:
        """Apply the `on_failure` of a step that has failed with no retry coming."""
        row = self.unit.connection.execute(select(_steps.c.spec, _steps.c.key).where(_steps.c.id == step_id)).one()
        policy = (row.spec or {}).get("on_failure", "fail")
        if policy == "continue":
            self.settled([step_id])
        elif policy == "pause":
            self.unit.run.open_steps -= 1
            self.pause(Cause(ENGINE, f"step {row.key} failed: {message}"), mode="drain", paused_by=ENGINE)
        else:
            self.unit.run.open_steps -= 1
            self.end(
                WorkflowState.FAILED, Cause(ENGINE, f"step {row.key} failed: {message}"), error=f"{row.key}: {message}"
            )

    def end(self, target: WorkflowState, cause: Cause, **values: Any) -> None:
        """End the run as failed or cancelled, and everything unsettled with it; the run's row is the last one."""
        self.close_steps(cause)
        self.unit.connection.execute(
            update(_requests)
            .where(_requests.c.run_id == self.unit.run.id, _requests.c.decision.is_(None))
            .values(decision="closed", decided_by=cause.actor, decided_at=clock()),
        )
        self.unit.run.open_steps = 0
        self.unit.move_run(target, cause, **values)

    def close_steps(self, cause: Cause) -> list[StateChange]:
        """Cancel every unsettled step, and have the bodies that are held interrupted."""
        changes = self.unit.move_steps(
            StepState.CANCELLED,
            cause,
            _steps.c.status.in_([state.value for state in UNSETTLED]),
            **LET_GO,
            completed_at=clock(),
        )
        # A failed step whose retry will never come keeps its state, but must not fall due.
        self.unit.connection.execute(
            update(_steps)
            .where(
                _steps.c.run_id == self.unit.run.id,
                _steps.c.status == StepState.FAILED.value,
                _steps.c.retry_at.is_not(None),
            )
            .values(retry_at=None, completed_at=clock()),
        )
        self.interrupt_draining(StepState.CANCELLED)
        return changes

    def interrupt_draining(self, state: StepState, mode: str = "soft") -> None:
        """Have the bodies of steps in `state` that are still held interrupted after the commit."""
        held = self.unit.connection.scalars(
            select(_steps.c.drain_task_id).where(
                _steps.c.run_id == self.unit.run.id,
                _steps.c.status == state.value,
                _steps.c.drain_token.is_not(None),
                _steps.c.drain_until > clock(),
            ),
        )
        self.unit.effects.interrupts += [
            Interrupt(task_id, "terminate" if mode == "terminate" else "soft") for task_id in held
        ]

    def pause(self, cause: Cause, *, mode: str, paused_by: str) -> None:
        """Pause the run: running steps with it, pending ones untouched but no longer due."""
        self.unit.move_run(
            WorkflowState.PAUSED,
            cause,
            pause_mode=mode,
            paused_by=paused_by,
            paused_at=clock(),
        )
        self.unit.move_steps(StepState.PAUSED, cause, _steps.c.status == StepState.RUNNING.value, **LET_GO)
        self.unit.connection.execute(
            update(_steps)
            .where(
                _steps.c.run_id == self.unit.run.id,
                _steps.c.status == StepState.PENDING.value,
                _steps.c.dispatch_check_at.is_not(None),
            )
            .values(dispatch_check_at=None),
        )
        if mode != "drain":
            self.interrupt_draining(StepState.PAUSED, mode)

    def finish_run(self) -> None:
        """End an executing run in which every step is settled: failed if a failure counts against it, else completed."""
        run = self.unit.run
        if run.status is not WorkflowState.EXECUTING or run.open_steps > 0:
            return
        failed = self.unit.connection.execute(
            select(_steps.c.key, _steps.c.error)
            .where(
                _steps.c.run_id == run.id,
                _steps.c.status == StepState.FAILED.value,
                or_(
                    _steps.c.spec["on_failure"].as_string().is_(None),
                    _steps.c.spec["on_failure"].as_string() != "continue",
                ),
            )
            .order_by(_steps.c.position)
            .limit(1),
        ).one_or_none()
        if failed is None:
            self.unit.move_run(WorkflowState.COMPLETED, Cause(ENGINE, "every step is settled"))
        else:
            reason = f"step {failed.key} failed: {failed.error}"
            self.unit.move_run(WorkflowState.FAILED, Cause(ENGINE, reason), error=f"{failed.key}: {failed.error}")

    def redispatch_pending(self) -> None:
        """Dispatch again the pending steps that were ready before a pause; their attempts keep their ids."""
        rows = self.unit.connection.execute(
            update(_steps)
            .where(
                and_(
                    _steps.c.run_id == self.unit.run.id,
                    _steps.c.status == StepState.PENDING.value,
                    _steps.c.task_id.is_not(None),
                ),
            )
            .values(dispatch_check_at=seconds_after(self.settings.redispatch_s), dispatches=_steps.c.dispatches + 1)
            .returning(*DISPATCH_COLUMNS),
        ).all()
        self.dispatch(rows)


def _readiness(row: Row[*tuple[Any, ...]]) -> Readiness:
    counts = DependencyCounts(open=row.open_deps, unmet=row.unmet_deps, failed=row.failed_deps)
    return readiness((row.spec or {}).get("trigger", "all_completed"), counts)


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
