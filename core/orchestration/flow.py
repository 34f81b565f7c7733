"""What follows a move, in set-based SQL: what starts, what is skipped, how a run pauses and ends.

`advance` decides; this module carries it out for whole sets of steps under the run's lock. It looks at the steps that changed
and at their dependents, never at the whole plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, and_, bindparam, exists, func, or_, select, update

from interlock.core.database.tables import ApprovalRequest, WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.errors import CommandRefused, ExpressionError
from interlock.core.events import Interrupt
from interlock.core.machine.attempt_columns import ENDED, RELEASED, carrier_of_drain
from interlock.core.machine.cause import Cause
from interlock.core.machine.step_transition import StepMove
from interlock.core.model.readiness import DependencyCounts, Readiness, readiness
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.plan.expressions import truthy

from . import approvals
from . import mapped_steps as mapping
from .dependency_counts import IS_OPEN, UNSETTLED, count_down, count_open, recount
from .new_attempts import begin_attempts, begin_first_attempts
from .parallel_limits import Places, ready_rows
from .step_context import step_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Row

    from interlock.core.events import StateChange
    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.settings import Settings

__all__ = ["ENGINE", "EVERY_STEP_IS_SETTLED", "PAUSE_MODES", "Flow", "check_mode"]

ENGINE = "engine"
EVERY_STEP_IS_SETTLED = "every step is settled"
PAUSE_MODES = ("interrupt", "drain", "terminate")

_CHUNK = 5_000  # ids in one statement; SQLite takes 32,766 parameters, PostgreSQL 65,535

_steps = table_of_model(WorkflowStep)
_requests = table_of_model(ApprovalRequest)

_READY_COLUMNS = (
    _steps.c.id,
    _steps.c.key,
    _steps.c.parent_id,
    _steps.c.spec,
    _steps.c.attempt,
    _steps.c.open_deps,
    _steps.c.unmet_deps,
    _steps.c.failed_deps,
)


def check_mode(mode: str) -> None:
    """Raise CommandRefused unless `mode` is one of `PAUSE_MODES`."""
    if mode not in PAUSE_MODES:
        raise CommandRefused("pause", f"mode: {mode!r} is not one of {', '.join(PAUSE_MODES)}", code="invalid")


_COMPLETE = StepMove(
    StepState.COMPLETED,
    _steps.c.id == bindparam("of_step"),
    **ENDED,
    result=bindparam("returned"),
    error=None,
    late=None,
    completed_at=clock(),
    carrier_id=None,
)


class Flow:
    """Consequences within one unit of work."""

    def __init__(self, unit: UnitOfWork, settings: Settings) -> None:
        self.unit = unit
        self.settings = settings

    # --- starting ----------------------------------------------------------------------------------------------------

    def start_roots(self) -> None:
        """Start every step that waits for nothing; called once, when the run begins to execute."""
        roots: Sequence[Any] = [step for step in self.unit.new_steps if step.open_deps == 0]
        self._propagate(self._start(roots or self._pending(_steps.c.open_deps == 0)))
        self.finish_run()

    def readvance(self) -> None:
        """Recount the dependencies, start every pending step whose trigger holds, and end the run if nothing is left.

        What normally follows a move in its own transaction; for what settled while paused, and for runs that were moved
        by other code than the controller.
        """
        recount(self.unit.connection, self.unit.run.id)
        rows = self._pending(_steps.c.dispatch_check_at.is_(None))
        decided = [(row, _readiness(row)) for row in rows]
        ready = [row for row, decision in decided if decision is Readiness.START]
        hopeless = [row.id for row, decision in decided if decision is Readiness.SKIP]
        settled = self._start(ready)
        if self._executes():
            self._propagate([*settled, *self._skip(hopeless, _NO_TRIGGER), *self._join(mapping.joinable(self.unit))])
        self.unit.run.open_steps = count_open(self.unit.connection, self.unit.run.id)
        self.finish_run()

    def _pending(self, *conditions: ColumnElement[bool]) -> Sequence[Row[*tuple[Any, ...]]]:
        return self.unit.connection.execute(
            select(*_READY_COLUMNS)
            .where(_steps.c.run_id == self.unit.run.id, _steps.c.status == StepState.PENDING.value, *conditions)
            .order_by(_steps.c.position),
        ).all()

    def _start(self, ready: Sequence[Row[*tuple[Any, ...]]], places: Places | None = None) -> list[str]:
        """Start steps whose trigger holds: each by its kind, those with work to do as far as there are places.

        Returns:
            Ids of those that have settled at once: not wanted, over an empty list, or failed without consequence.
        """
        places = places or Places(self.unit)
        tasks: list[Row[*tuple[Any, ...]]] = []
        gates: list[Row[*tuple[Any, ...]]] = []
        maps: list[Row[*tuple[Any, ...]]] = []
        settled: list[str] = []
        for row in ready:
            spec = row.spec or {}
            kind = gates if spec.get("approval") is not None else maps if spec.get("map") is not None else tasks
            if kind is tasks and not places.take(row):
                continue
            wanted = self._wanted(row)
            if not self._executes():
                return []  # its condition failed, and that ended or paused the run
            if wanted is None:
                settled.append(row.id)
            elif not wanted:
                settled += self._skip([row.id], "its condition is false")
            else:
                kind.append(row)
        begin_first_attempts(self.unit, self.settings, [row.id for row in tasks])
        self._ask_first([row.id for row in gates])
        for row in maps:  # last, so that the places of this call's tasks are counted
            settled += self._map(row) if self._executes() else []
        return settled

    def _wanted(self, row: Row[*tuple[Any, ...]]) -> bool | None:
        """Whether the step's condition holds; None where evaluating it failed the step."""
        condition = (row.spec or {}).get("when")
        if condition is None:
            return True
        try:
            return truthy(condition, step_context(self.unit.connection, self.unit.run.id, row.id, [condition]))
        except ExpressionError as error:
            # Not through `settled`: that would come back here with rows that this call has decided about already.
            return None if self._fail_at_start(row, f"when: {error.detail}") else False

    def _ask_first(self, step_ids: Sequence[str]) -> None:
        if not step_ids:
            return
        cause = Cause(ENGINE, "waits for an approval")
        for ids in _chunks(step_ids):
            self.unit.move_steps(StepState.RUNNING, cause, _steps.c.id.in_(ids), started_at=clock())
            approvals.ask(self, ids, cause)

    def _map(self, row: Row[*tuple[Any, ...]]) -> list[str]:
        try:
            items = mapping.items_of(self.unit, self.settings, row)
        except ExpressionError as error:
            return [row.id] if self._fail_at_start(row, f"map: {error.detail}") else []
        mapping.expand(self.unit, row, items, Cause(ENGINE))
        if not items:
            return self._join([row.id])
        return self._start(ready_rows(self.unit.connection, self.unit.run, row.id, limit=len(items)))

    def begin_again(self, row: Row[*tuple[Any, ...]]) -> None:
        """Begin a running step once more that failed before its approval was asked for, or over its list."""
        asks = (row.spec or {}).get("approval") is not None
        if asks and not self.unit.connection.scalar(select(exists().where(_requests.c.step_id == row.id))):
            approvals.ask(self, [row.id], Cause(ENGINE, "waits for an approval"))
        else:
            self.go_on(row)

    def go_on(self, row: Row[*tuple[Any, ...]]) -> None:
        """Do what a running step has yet to do, once it is approved."""
        if (row.spec or {}).get("map") is None:
            begin_attempts(self.unit, self.settings, _steps.c.id == row.id)
            return
        expanded = self.unit.connection.scalar(select(exists().where(_steps.c.parent_id == row.id)))
        self._propagate(self._join([row.id]) if expanded else self._map(row))

    def refill(self) -> None:
        """Start what a limit has kept waiting, because a place was given back."""
        self._begin_approved()
        self._propagate(self._start_waiting())

    def _join(self, step_ids: Sequence[str]) -> list[str]:
        """Complete mapped steps whose children are settled; returns the ids of those that have settled."""
        settled: list[str] = []
        for step_id in step_ids:
            if not self._executes():
                break  # the one before has failed, and that ended or paused the run
            fault = mapping.join(self.unit, self.settings, step_id, Cause(ENGINE, "every item is settled"))
            if fault is None:
                self.unit.run.open_steps -= 1
                settled.append(step_id)
            elif self._fail_running(step_id, fault):
                settled.append(step_id)
        return settled

    # --- settling ----------------------------------------------------------------------------------------------------

    def settled(self, step_ids: Sequence[str]) -> None:
        """Apply what follows from steps that have just settled, up to the end of the run."""
        self.unit.run.open_steps -= len(step_ids)
        if self._executes():
            self._propagate(step_ids)
            self.finish_run()

    def complete_step(self, step_id: str, result: Any, cause: Cause) -> None:
        """Move a running step to completed with `result`, a JSON value, and apply what follows."""
        stored = JSON.NULL if result is None else result
        self.unit.make(_COMPLETE, cause, of_step=step_id, returned=stored)
        self.settled([step_id])

    def _propagate(self, settled: Sequence[str]) -> None:
        while settled and self._executes():
            # Not by recursion: with one place, a thousand steps that are not wanted give it back one after the other.
            settled = self._follow(settled) or (self._start_waiting() if self.unit.run.max_parallel is not None else [])

    def _follow(self, settled: Sequence[str]) -> list[str]:
        """Move the dependents of steps that have settled; returns the ids of those that have settled at once."""
        self._begin_approved()
        rows = [row for ids in _chunks(settled) for row in count_down(self.unit.connection, ids)]
        mapped = [
            row for row in rows if row.status == StepState.RUNNING.value and (row.spec or {}).get("map") is not None
        ]
        waiting = [row for row in rows if row.status == StepState.PENDING.value and row.attempt == 0]
        decided = [(row, _readiness(row)) for row in waiting]
        ready = [row for row, decision in decided if decision is Readiness.START]
        hopeless = [row.id for row, decision in decided if decision is Readiness.SKIP]
        joining = [row.id for row in mapped if row.open_deps == 0]
        now = [*self._skip(hopeless, _NO_TRIGGER), *self._join(joining), *self._start(ready)]
        for row in mapped:
            if row.open_deps > 0 and row.spec["map"].get("max_parallel") is not None and self._executes():
                now += self._start_items(row)
        return now

    def _start_items(self, row: Row[*tuple[Any, ...]]) -> list[str]:
        """Start as many items of a limited map as there are places for; most often one, for the one that has settled."""
        ready = ready_rows(self.unit.connection, self.unit.run, row.id, limit=1)
        if not ready:  # nothing to count for
            return []
        places = Places(self.unit)
        left = places.left_among(row)
        if left > 1:
            ready = ready_rows(self.unit.connection, self.unit.run, row.id, limit=left)
        return self._start(ready, places) if left else []

    def _begin_approved(self) -> None:
        """Begin what was approved while there was no place for it; before others, since a person asked for it."""
        if self.unit.run.waiting_steps > 0 and self._executes() and not self.unit.resuming:
            approvals.apply_stored(self)

    def _start_waiting(self) -> list[str]:
        """Start steps that are ready and wait for a place."""
        if not self._executes() or self.unit.resuming:
            return []
        places = Places(self.unit)
        without = places.full_parents()
        return self._start(ready_rows(self.unit.connection, self.unit.run, without=without), places)

    def _skip(self, ids: Sequence[str], reason: str) -> list[str]:
        for chunk in _chunks(ids):
            changes = self.unit.move_steps(
                StepState.SKIPPED,
                Cause(ENGINE, reason),
                _steps.c.id.in_(chunk),
                completed_at=clock(),
            )
            self.unit.run.open_steps -= len(changes)
        return list(ids)

    def _executes(self) -> bool:
        return self.unit.run.status is WorkflowState.EXECUTING

    # --- failing -----------------------------------------------------------------------------------------------------

    def fail_unstarted(self, step_id: str, message: str) -> None:
        """Fail a step that cannot even start: pending → running → failed, with what follows."""
        self._fail_pending(step_id, message)
        self.step_failed(step_id, message)

    def _fail_at_start(self, row: Row[*tuple[Any, ...]], message: str) -> bool:
        """Fail a step that is about to start; True where the run goes on without it."""
        self._fail_pending(row.id, message)
        return self._failure_is_borne(row.id, message)

    def _fail_running(self, step_id: str, message: str) -> bool:
        self._move_to_failed(step_id, message)
        return self._failure_is_borne(step_id, message)

    def _failure_is_borne(self, step_id: str, message: str) -> bool:
        spec = self.unit.connection.scalar(select(_steps.c.spec).where(_steps.c.id == step_id)) or {}
        if spec.get("on_failure") != "continue":
            self.step_failed(step_id, message)
            return False
        self.unit.run.open_steps -= 1
        return True

    def _fail_pending(self, step_id: str, message: str) -> None:
        self.unit.move_steps(
            StepState.RUNNING,
            Cause(ENGINE, message),
            _steps.c.id == step_id,
            _steps.c.status == StepState.PENDING.value,
            attempt=_steps.c.attempt + 1,
            started_at=func.coalesce(_steps.c.started_at, clock()),
        )
        self._move_to_failed(step_id, message)

    def _move_to_failed(self, step_id: str, message: str) -> None:
        cause = Cause(ENGINE, message)
        values = {**ENDED, "error": message, "completed_at": clock()}
        self.unit.move_steps(StepState.FAILED, cause, _steps.c.id == step_id, **values)

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
            .values(decision=approvals.CLOSED, decided_by=cause.actor, decided_at=clock()),
        )
        self.unit.run.open_steps = self.unit.run.waiting_steps = 0
        self.unit.move_run(target, cause, **values)

    def close_steps(self, cause: Cause) -> list[StateChange]:
        """Cancel every unsettled step, and have the bodies that are held interrupted."""
        changes = self.unit.move_steps(
            StepState.CANCELLED,
            cause,
            _steps.c.status.in_([state.value for state in UNSETTLED]),
            **RELEASED,
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
        self.interrupt_draining(StepState.CANCELLED, "soft")
        return changes

    def interrupt_draining(self, state: StepState, mode: str, *conditions: ColumnElement[bool]) -> None:
        """Have the bodies of steps in `state` that are still held interrupted after the commit."""
        held = self.unit.connection.execute(
            select(_steps.c.id, _steps.c.drain_task_id, _steps.c.carrier_id).where(
                _steps.c.run_id == self.unit.run.id,
                _steps.c.status == state.value,
                _steps.c.drain_token.is_not(None),
                _steps.c.drain_until > clock(),
                *conditions,
            ),
        )
        self.unit.effects.interrupts += [
            Interrupt(row.drain_task_id, "terminate" if mode == "terminate" else "soft", carrier_of_drain(row))
            for row in held
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
        self.unit.move_steps(StepState.PAUSED, cause, _steps.c.status == StepState.RUNNING.value, **RELEASED)
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
        """End an executing run in which every step is settled, or let it wait where only people can move it on."""
        if not self._executes() or self.unit.resuming:
            return
        if self.unit.run.open_steps > 0:
            self._wait_for_people()
            return
        hindrance = self.unit.connection.execute(
            select(_steps.c.key, _steps.c.error, IS_OPEN.label("open"))
            .where(
                _steps.c.run_id == self.unit.run.id,
                or_(
                    IS_OPEN,
                    and_(
                        _steps.c.status == StepState.FAILED.value,
                        or_(
                            _steps.c.spec["on_failure"].as_string().is_(None),
                            _steps.c.spec["on_failure"].as_string() != "continue",
                        ),
                    ),
                ),
            )
            .order_by(IS_OPEN.desc(), _steps.c.position)
            .limit(1),
        ).one_or_none()
        if hindrance is None:
            self.unit.move_run(WorkflowState.COMPLETED, Cause(ENGINE, EVERY_STEP_IS_SETTLED))
        elif hindrance.open:
            # The counter was wrong: rows that another version or another program has written. The sweeper finds what may move.
            self.unit.run.open_steps = count_open(self.unit.connection, self.unit.run.id)
            self._wait_for_people()
        else:
            reason = f"step {hindrance.key} failed: {hindrance.error}"
            self.unit.move_run(WorkflowState.FAILED, Cause(ENGINE, reason), error=f"{hindrance.key}: {hindrance.error}")

    def _wait_for_people(self) -> None:
        """Executing → waiting_approval, where a step waits and nothing runs, is due, or is paused by a person."""
        if self.unit.run.waiting_steps == 0:
            return
        moving = exists().where(
            _steps.c.run_id == self.unit.run.id,
            or_(
                and_(_steps.c.status == StepState.RUNNING.value, _steps.c.task_id.is_not(None)),
                _steps.c.status == StepState.PAUSED.value,
                _steps.c.due_at.is_not(None),
            ),
        )
        if not self.unit.connection.scalar(select(moving)):
            self.unit.move_run(WorkflowState.WAITING_APPROVAL, Cause(ENGINE, "nothing can go on without an approval"))


_NO_TRIGGER = "a dependency did not complete as its trigger needs"


def _readiness(row: Row[*tuple[Any, ...]]) -> Readiness:
    counts = DependencyCounts(open=row.open_deps, unmet=row.unmet_deps, failed=row.failed_deps)
    return readiness((row.spec or {}).get("trigger", "all_completed"), counts)


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
