"""Turns Celery's task signals into claims and reports.

`task_prerun`, `task_success`, `task_failure` and `task_retry` arrive in the process that runs the body; they claim the attempt and
report on it. What arrives in a prefork worker's MAIN process is handled by the worker's supervisor, which must not touch the
database. A receiver holds no truth: one that fails, or never fires, is made good by leases.
"""

from __future__ import annotations

import logging
import time
import traceback as tracebacks
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from celery.exceptions import Retry, SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
from sqlalchemy.exc import SQLAlchemyError
from tenacity import stop_after_delay

from interlock.core.attempts.attempts import AttemptRef, Claim
from interlock.core.attempts.outcomes import Failure
from interlock.core.backoff import Backoff
from interlock.core.database.errors import may_succeed_later
from interlock.core.database.retrying import retry_call
from interlock.core.errors import InterlockError, NotJson, PayloadTooLarge
from interlock.core.fault_points import fault_point
from interlock.core.json_values import checked_json, plain_json
from interlock.core.model.retry import exception_names
from interlock.signals.runtime import runtime_of
from interlock.signals.step_header import read_header

from .held_attempt import HeldAttempt, StepInterrupted, held_attempt, hold_attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery, Task

    from interlock.core.attempts.run_through import RunThroughOffer
    from interlock.core.model.retry import FailureKind
    from interlock.signals.runtime import Runtime

    from .run_through_session import RunThroughSession

__all__ = [
    "claim_attempt",
    "persist",
    "report_discarded",
    "report_failure",
    "report_retry",
    "report_success",
]

T = TypeVar("T")

logger = logging.getLogger("interlock.receivers")

_TRACEBACK_CHARACTERS = 10_000
_LIMIT_SLACK_S = 0.5  # Celery's clock started before ours
_REPORT_PAUSES = Backoff(0.1, 2.0, jitter=1.0)


def claim_attempt(task: Task[..., Any], task_id: str, session: RunThroughSession | None = None) -> None:
    """`task_prerun`: claim the attempt. Whether the body runs is decided by `before_start`, which can still stop it.

    Args:
        task: About to run.
        task_id: Its Celery id.
        session: Of the message on which this process came, where it may run further steps.
    """
    request = task.request
    if held_attempt(request) is not None:
        return  # claimed with the completion of the step before it
    header = read_header(request)
    if header is None:
        return
    ref = AttemptRef(header.run_id, header.step_id, task_id, uuid4().hex)
    begun_at = time.monotonic()
    claim = _claim(task.app, ref, request.hostname or "worker")
    hold_attempt(request, HeldAttempt(ref, claim, begun_at=begun_at, session=session))


def _claim(app: Celery, ref: AttemptRef, worker: str) -> Claim:
    try:
        runtime = runtime_of(app)
        return persist(lambda: runtime.attempts.claim(ref, worker), retry_s=runtime.settings.lease_s / 3)
    except Exception as error:  # whatever it is, the body must not run unclaimed; the sweeper sends the attempt again
        logger.exception("could not claim %s", ref.task_id)
        return Claim(granted=False, reason=f"the claim failed: {type(error).__name__}")


def report_success(task: Task[..., Any], result: Any) -> None:
    """`task_success`: record the result. One that cannot be stored fails the step."""
    held = held_attempt(task.request)
    if held is None:
        return
    fault_point("body.end", held.ref.task_id)
    if held.retry is not None:
        report_retry(task, held.retry)
        return
    runtime = runtime_of(task.app)
    try:
        document = checked_json("result", result, runtime.settings.max_result_bytes)
    except NotJson as error:
        failure = Failure("unusable", f"the result is not JSON: {error}")
    except PayloadTooLarge as error:
        failure = Failure("unusable", str(error))
    else:
        # One offer for all tries: by its token a try finds what an earlier one has claimed whose answer was lost.
        stopped = held.interrupted or held.soft_limited
        offer = None if held.session is None or stopped else held.session.offer()
        _report(task, held, lambda: _complete(runtime, held, document, offer))
        return
    _report(task, held, lambda: runtime.attempts.fail(held.ref, failure))


def _complete(runtime: Runtime, held: HeldAttempt, document: Any, offer: RunThroughOffer | None) -> None:
    _, claimed = runtime.attempts.complete_and_claim_next(held.ref, document, offer)
    if claimed is not None and offer is not None and held.session is not None:
        held.session.claimed(claimed, offer)


def report_failure(task: Task[..., Any], exception: BaseException, trace: Any = None) -> None:
    """`task_failure`: record why there is no result."""
    held = held_attempt(task.request)
    if held is None or not held.claim.granted:
        return
    if held.retry is not None:
        report_retry(task, held.retry)
        return
    failure = _failure_of(task, held, exception, trace)
    _report(task, held, lambda: runtime_of(task.app).attempts.fail(held.ref, failure))


def report_retry(task: Task[..., Any], reason: Any) -> None:
    """`task_retry`: the task asked Celery for another try; record it with the time Celery computed."""
    held = held_attempt(task.request)
    if held is None or not held.claim.granted or not isinstance(reason, Retry):
        return
    exception = reason.exc
    message = f"{type(exception).__name__}: {exception}" if exception is not None else str(reason)
    try:
        override = _changed_arguments(task.request, reason.sig)  # type: ignore[attr-defined] # missing in celery-types
    except ValueError as error:
        failure = Failure("unusable", f"retry with arguments that are not JSON: {error}")
    else:
        failure = Failure(
            "interrupted" if held.interrupted else "celery_retry",
            message,
            exception_names=exception_names(type(exception)) if exception is not None else (),
            delay_s=_delay_s(reason.when),
            override=override,
        )
    _report(task, held, lambda: runtime_of(task.app).attempts.fail(held.ref, failure))


def report_discarded(task: Task[..., Any], state: str | None) -> None:
    """`task_postrun` of a body that ended by `Ignore`, `Reject` or `self.replace`: nobody would finish the step."""
    held = held_attempt(task.request)
    if held is None or not held.claim.granted or state not in ("IGNORED", "REJECTED"):
        return
    if held.asks is not None:
        asks = held.asks
        _report(task, held, lambda: _ask(task, held, asks))
        return
    if held.retry is not None:
        report_retry(task, held.retry)
        return
    call = {"IGNORED": "Ignore (or self.replace)", "REJECTED": "Reject"}[state]
    failure = Failure("unusable", f"the task raised {call}, which a step cannot: return a result or fail instead")
    _report(task, held, lambda: runtime_of(task.app).attempts.fail(held.ref, failure))


def _ask(task: Task[..., Any], held: HeldAttempt, asks: dict[str, Any]) -> None:
    runtime = runtime_of(task.app)
    if not runtime.step_calls.ask(held.ref, asks):
        # Paused or cancelled meanwhile: let go of the step; resumed, it asks again.
        runtime.attempts.fail(held.ref, Failure("interrupted", "asked for an approval"))


def _delay_s(when: Any) -> float:
    """Seconds until the time that a `Retry` names, as an eta or a countdown."""
    if isinstance(when, datetime):
        return max((when - datetime.now(when.tzinfo or UTC)).total_seconds(), 0.0)
    return float(when or 0.0)


def _changed_arguments(request: Any, signature: Any) -> dict[str, Any] | None:
    """The arguments of the next attempt, where the task gave others than its own to `self.retry`."""
    args, kwargs = list(signature.args or ()), dict(signature.kwargs or {})
    if args == list(request.args or ()) and kwargs == dict(request.kwargs or {}):
        return None
    document, problems = plain_json({"args": args, "kwargs": kwargs})
    if problems:
        raise ValueError(problems[0][1])
    return dict(document)


def _failure_of(task: Task[..., Any], held: HeldAttempt, exception: BaseException, trace: Any) -> Failure:
    message = f"{type(exception).__name__}: {exception}" if str(exception) else type(exception).__name__
    if held.interrupted or isinstance(exception, StepInterrupted):
        return Failure("interrupted", message)
    meta: dict[str, Any] = {}
    if trace is not None:
        text = trace if isinstance(trace, str) else "".join(tracebacks.format_tb(trace))
        meta["traceback"] = text[-_TRACEBACK_CHARACTERS:]
    if isinstance(exception, SoftTimeLimitExceeded) and held.soft_limited:
        # Before its limit, or without one, somebody else has sent the signal: a revoke that is not ours.
        # Of one that came on another step's message, that message was revoked: it is run again.
        revoked: FailureKind = "revoked" if held.has_own_message else "interrupted"
        cause: FailureKind = "timeout" if _ran_into_limit(task, held) else revoked
        return Failure(cause, message, exception_names(type(exception)), meta)
    if isinstance(exception, TimeLimitExceeded):
        return Failure("timeout", message, exception_names(type(exception)), meta)
    if isinstance(exception, WorkerLostError):
        return Failure("worker_lost", message, meta=meta)
    return Failure("error", message, exception_names(type(exception)), meta)


def _ran_into_limit(task: Task[..., Any], held: HeldAttempt) -> bool:
    limits = getattr(task.request, "timelimit", None) or (None, None)
    limit_s = limits[1] or task.soft_time_limit or task.app.conf.task_soft_time_limit
    return bool(limit_s) and time.monotonic() - held.begun_at > float(limit_s) - _LIMIT_SLACK_S


def _report(task: Task[..., Any], held: HeldAttempt, report: Callable[[], object]) -> None:
    runtime = runtime_of(task.app)
    try:
        persist(report, retry_s=runtime.settings.report_retry_s)
    except (InterlockError, SQLAlchemyError):
        logger.exception("could not report on %s; its lease will run out and the step is tried again", held.ref.task_id)


def persist(call: Callable[[], T], *, retry_s: float) -> T:
    """Call until the database has taken it, for at most `retry_s`: it may be away, full, or between two primaries.

    Claims and reports are idempotent by their token, so one whose answer was lost is simply made again.
    """
    return retry_call(call, when=may_succeed_later, backoff=_REPORT_PAUSES, stop=stop_after_delay(retry_s))
