"""Records how an attempt ended, and decides on a retry: for reports of workers, and for those deferred during a pause."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, bindparam, cast

from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import clock, seconds_after
from interlock.core.json_values import cut_text, storable_text
from interlock.core.machine.attempt_columns import ENDED
from interlock.core.machine.cause import ENGINE, Cause
from interlock.core.machine.step_transition import StepTransition
from interlock.core.model.retry import Retry, RetryPolicy, Tally, decide
from interlock.core.model.states import StepState
from interlock.core.orchestration.flow import Flow
from interlock.core.orchestration.new_attempts import begin_attempts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row

    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.model.retry import FailureKind, GiveUp
    from interlock.core.settings import Settings

__all__ = ["Failure", "apply_late", "record_failure", "retry_now"]

_steps = table_of_model(WorkflowStep)

_REASONS: Mapping[str, str] = {
    "worker_lost": "worker lost",
    "shutdown": "worker shutdown",
    "interrupted": "interrupted",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt ended without a result.

    Attributes:
        cause: `error` and `timeout` count as failures, `worker_lost` as a loss, `celery_retry` as neither (the task's own
            `max_retries` bounds it); `unusable` is never retried.
        message: For people: stored as the step's error.
        exception_names: Qualified names of the exception's classes, for `non_retryable`.
        meta: Stored with the history row (traceback, worker, …).
        delay_s: With `celery_retry`, the countdown Celery computed.
        override: With `celery_retry`, the arguments of the next attempt: `{"args": […], "kwargs": {…}}`.
    """

    cause: FailureKind
    message: str
    exception_names: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    delay_s: float = 0.0
    override: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Make the texts storable: an exception's may hold anything, and a failure that cannot be recorded is lost."""
        object.__setattr__(self, "message", storable_text(self.message))
        texts = {name: storable_text(value) for name, value in self.meta.items() if isinstance(value, str)}
        object.__setattr__(self, "meta", {**self.meta, **texts})

    def cut(self, limit: int) -> Failure:
        """The same with texts of at most `limit` characters each: of a message the beginning, of a traceback the end."""
        texts = {
            name: cut_text(value, limit, keeps_end=name == "traceback")
            for name, value in self.meta.items()
            if isinstance(value, str)
        }
        names = tuple(name for name in self.exception_names if len(name) <= limit)
        message = cut_text(self.message, limit)
        return replace(self, message=message, exception_names=names, meta={**self.meta, **texts})

    @property
    def reason(self) -> str:
        """The history's reason."""
        return _REASONS.get(self.cause, self.message)


@cache
def _failing(*, again: bool, overridden: bool) -> StepTransition:
    """The transition to failed: for good, or to be tried `again`, with other arguments where its task has `overridden` them."""
    values = {
        **ENDED,
        "failures": bindparam("counted_failures"),
        "losses": bindparam("counted_losses"),
        "celery_retries": bindparam("counted_retries"),
        "error": bindparam("message"),
        "late": None,
        "retry_at": seconds_after(cast(bindparam("delay_s"), Float)) if again else None,
        "completed_at": None if again else clock(),
    }
    if overridden:
        values["override"] = bindparam("new_override")
    return StepTransition(StepState.FAILED, _steps.c.id == bindparam("of_step"), **values)


_RETRY = StepTransition(
    StepState.RUNNING,
    _steps.c.id.in_(bindparam("step_ids", expanding=True)),
    _steps.c.status == StepState.FAILED.value,
    completed_at=None,
)


def record_failure(
    unit: UnitOfWork, settings: Settings, row: Row[*tuple[Any, ...]], failure: Failure, cause: Cause
) -> None:
    """Move a running step to failed; then to running again if a retry is due at once, or apply its `on_failure`."""
    tally = Tally(row.failures, row.losses, row.celery_retries).after(failure.cause)
    decision = _decide(row.spec or {}, failure, tally)
    again = isinstance(decision, Retry)
    delay_s = decision.delay_s if isinstance(decision, Retry) else 0.0
    counted = {
        "counted_failures": tally.failures,
        "counted_losses": tally.lost,
        "counted_retries": tally.celery_retries,
    }
    move = _failing(again=again, overridden=failure.cause == "celery_retry")
    unit.apply(
        move, cause, of_step=row.id, message=failure.message, delay_s=delay_s, new_override=failure.override, **counted
    )
    flow = Flow(unit, settings)
    if not isinstance(decision, Retry):
        flow.step_failed(row.id, failure.message)
    elif delay_s <= 0:
        retry_now(unit, settings, [row.id], Cause(ENGINE, f"retry after: {failure.reason}"))


def retry_now(unit: UnitOfWork, settings: Settings, step_ids: Sequence[str], cause: Cause) -> None:
    """Move failed steps to running with a new attempt each, and have them dispatched."""
    moved = unit.apply(_RETRY, cause, step_ids=list(step_ids))
    if moved:
        begin_attempts_of(unit, settings, [change.entity_id for change in moved])


def apply_late(unit: UnitOfWork, settings: Settings, row: Row[*tuple[Any, ...]], cause: Cause) -> None:
    """At resume: move a paused step on by the report that came while it was paused (its `late` column)."""
    unit.move_steps(StepState.RUNNING, cause, _steps.c.id == row.id, _steps.c.status == StepState.PAUSED.value)
    late = row.late
    if late["kind"] == "completed":
        Flow(unit, settings).complete_step(row.id, late["result"], Cause(ENGINE, "completed while paused"))
    else:
        failure = Failure(**{**late["failure"], "exception_names": tuple(late["failure"]["exception_names"])})
        record_failure(
            unit,
            settings,
            row,
            failure,
            Cause(ENGINE, failure.reason, {"error": failure.message, "cause": failure.cause}),
        )


def _decide(spec: Mapping[str, Any], failure: Failure, tally: Tally) -> Retry | GiveUp:
    return decide(
        RetryPolicy.model_validate(spec["retry"]) if "retry" in spec else RetryPolicy(),
        failures=tally.failures,
        lost=tally.lost,
        exception_names=failure.exception_names,
        kind=failure.cause,
        countdown_s=failure.delay_s,
    )
