"""Describes how a body ended without a result, from what it raised.

What it raised is the task's own: its `__str__` may raise, and what it asks of `self.retry` may be anything. A failure is described
all the same, by its type's name if need be.
"""

from __future__ import annotations

import logging
import math
import time
import traceback as tracebacks
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from billiard.common import terminate_handler_fired  # type: ignore[attr-defined] # missing in its stubs
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError, WorkerShutdown, WorkerTerminate
from celery.utils.time import maybe_iso8601, maybe_make_aware

from interlock.core.attempts.outcomes import Failure
from interlock.core.json_values import plain_json
from interlock.core.model.retry import exception_names

from .held_attempt import HeldAttempt, StepInterrupted

if TYPE_CHECKING:
    from types import FrameType

    from celery import Task
    from celery.exceptions import Retry

    from interlock.core.model.retry import FailureKind

__all__ = ["MAX_RETRY_DELAY_S", "bare_failure", "ends_process", "failure_of", "retry_of", "what_was_raised"]

logger = logging.getLogger("interlock.receivers")

MAX_RETRY_DELAY_S: Final = 366 * 86_400
"""How far ahead a task's own retry may be; as far as a policy's delay."""

_LIMIT_SLACK_S = 0.5  # Celery's clock started before ours


def failure_of(task: Task[..., Any], held: HeldAttempt, exception: BaseException) -> Failure:
    """How an attempt failed whose body raised this."""
    try:
        return _failure_of(task, held, exception)
    except Exception:  # of the exception's own methods
        logger.exception("could not describe how %s failed", held.ref.task_id)
        return bare_failure(exception)


def bare_failure(exception: BaseException) -> Failure:
    """The failure of which nothing is known but the exception's class."""
    return Failure("error", type(exception).__name__, exception_names(type(exception)))


def retry_of(task: Task[..., Any], held: HeldAttempt, reason: Retry) -> Failure:
    """How an attempt ended whose body asked for another by `self.retry`."""
    try:
        return _retry_of(task, held, reason)
    except Exception as error:  # of what the task gave to `self.retry`
        logger.exception("could not read what %s asked for", held.ref.task_id)
        return Failure("unusable", f"what the task asked of self.retry cannot be read: {type(error).__name__}")


def ends_process(exception: BaseException) -> bool:
    """Whether an exception that passes through a body is not its own, but how the worker or its pool ends it."""
    of_pool = type(exception).__module__.partition(".")[0] in ("gevent", "greenlet", "eventlet")
    return of_pool or isinstance(exception, (WorkerShutdown, WorkerTerminate)) or terminate_handler_fired()


def what_was_raised(exception: BaseException) -> BaseException:
    """What the body raised: the exception that has reached Celery, or where Celery or a hook stumbled over one, that one.

    Celery's tracer has caught that one, so that its traceback begins in the same frame; what the body itself has handled has not
    come so far.
    """
    raised, context = exception, exception.__context__
    while context is not None:
        if _caught_in(context) is not None and _caught_in(context) is _caught_in(exception):
            raised = context
        context = context.__context__
    return raised


def _caught_in(exception: BaseException) -> FrameType | None:
    return None if exception.__traceback__ is None else exception.__traceback__.tb_frame


def _failure_of(task: Task[..., Any], held: HeldAttempt, exception: BaseException) -> Failure:
    message = _named(exception)
    if held.interrupted or isinstance(exception, StepInterrupted):
        return Failure("interrupted", message)
    meta: dict[str, Any] = {}
    if exception.__traceback__ is not None:
        meta["traceback"] = "".join(tracebacks.format_tb(exception.__traceback__))
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


def _named(exception: BaseException) -> str:
    name = type(exception).__name__
    try:
        text = str(exception)
    except Exception:  # noqa: BLE001 - the exception's own method, which tells nothing then
        text = ""
    return f"{name}: {text}" if text else name


def _ran_into_limit(task: Task[..., Any], held: HeldAttempt) -> bool:
    limits = getattr(task.request, "timelimit", None) or (None, None)
    limit_s = limits[1] or task.soft_time_limit or task.app.conf.task_soft_time_limit
    return bool(limit_s) and time.monotonic() - held.begun_at > float(limit_s) - _LIMIT_SLACK_S


def _retry_of(task: Task[..., Any], held: HeldAttempt, reason: Retry) -> Failure:
    exception = held.retry_cause or reason.exc
    try:
        override = _changed_arguments(task.request, reason.sig)  # type: ignore[attr-defined] # missing in celery-types
    except ValueError as error:
        return Failure("unusable", f"retry with arguments that are not JSON: {error}")
    delay_s = _delay_s(reason.when)
    if not delay_s <= MAX_RETRY_DELAY_S:  # NaN is not either
        limit = f"at most {MAX_RETRY_DELAY_S:,} seconds (366 days) ahead"
        return Failure(
            "unusable", f"self.retry asked for another try in {delay_s:g} seconds: give a countdown or an eta {limit}"
        )
    return Failure(
        "interrupted" if held.interrupted else "celery_retry",
        _named(exception) if exception is not None else str(reason),
        exception_names=exception_names(type(exception)) if exception is not None else (),
        delay_s=delay_s,
        override=override,
    )


def _delay_s(when: Any) -> float:
    """Seconds until the time that a `Retry` names, as an eta or a countdown; 0 where it has passed."""
    if isinstance(when, str):
        when = maybe_iso8601(when)
    if isinstance(when, datetime):
        eta = maybe_make_aware(when)  # a naive one is UTC for Celery's workers, whatever their timezone
        return max((eta - datetime.now(UTC)).total_seconds(), 0.0)
    try:
        delay_s = float(when or 0.0)
    except OverflowError:  # of an integer
        delay_s = math.inf if when > 0 else 0.0
    return 0.0 if delay_s < 0 else delay_s  # not `max`, which would hide NaN


def _changed_arguments(request: Any, signature: Any) -> dict[str, Any] | None:
    """The arguments of the next attempt, where the task gave others than its own to `self.retry`."""
    args, kwargs = list(signature.args or ()), dict(signature.kwargs or {})
    if args == list(request.args or ()) and kwargs == dict(request.kwargs or {}):
        return None
    document, problems = plain_json({"args": args, "kwargs": kwargs})
    if problems:
        raise ValueError(problems[0][1])
    return dict(document)
