"""Turns Celery's task signals into claims and reports.

`task_prerun`, `task_success`, `task_failure` and `task_retry` arrive in the process that runs the body; they claim the attempt and
report on it. What arrives in a prefork worker's MAIN process is handled by the worker's supervisor, which must not touch the
database. A receiver holds no truth: one that fails, or never fires, is made good by leases.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from celery.exceptions import Retry
from tenacity import stop_after_delay

from interlock.core.attempts.attempts import AttemptRef, Claim
from interlock.core.attempts.outcomes import Failure
from interlock.core.backoff import Backoff
from interlock.core.database.errors import may_succeed_later
from interlock.core.database.retrying import retry_call
from interlock.core.errors import NotJson, PayloadTooLarge
from interlock.core.fault_points import fault_point
from interlock.core.json_values import checked_json
from interlock.signals.runtime import runtime_of
from interlock.signals.step_header import read_header

from .body_failure import bare_failure, ends_process, failure_of, retry_of, what_was_raised
from .held_attempt import HeldAttempt, held_attempt, hold_attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery, Task

    from interlock.core.attempts.run_through import RunThroughOffer
    from interlock.signals.runtime import Runtime

    from .run_through_session import RunThroughSession

__all__ = [
    "claim_attempt",
    "persist",
    "report_failure",
    "report_retry",
    "report_success",
    "report_unsignalled",
]

T = TypeVar("T")

logger = logging.getLogger("interlock.receivers")

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
    except Exception as error:  # of an object of the task's, whose methods may do anything
        logger.exception("could not read the result of %s", held.ref.task_id)
        failure = Failure("unusable", f"the result cannot be read: {type(error).__name__}")
    else:
        # One offer for all tries: by its token a try finds what an earlier one has claimed whose answer was lost.
        stopped = held.interrupted or held.soft_limited
        offer = None if held.session is None or stopped else held.session.offer()
        _report(task, held, lambda: _complete(runtime, held, document, offer))
        return
    _report(task, held, lambda: runtime.attempts.fail(held.ref, failure), failure)


def _complete(runtime: Runtime, held: HeldAttempt, document: Any, offer: RunThroughOffer | None) -> None:
    _, claimed = runtime.attempts.complete_and_claim_next(held.ref, document, offer)
    if claimed is not None and offer is not None and held.session is not None:
        held.session.claimed(claimed, offer)


def report_failure(task: Task[..., Any], exception: BaseException) -> None:
    """`task_failure`: record why there is no result.

    The exception that decides is the one that Celery is handling: the one that it gives is another, of a base class or a wrapper,
    where the raised one cannot be pickled.
    """
    _report_failure(task, sys.exception() or exception)


def _report_failure(task: Task[..., Any], exception: BaseException) -> None:
    held = held_attempt(task.request)
    if held is None or not held.claim.granted:
        return
    if held.retry is not None:
        report_retry(task, held.retry)
        return
    failure = failure_of(task, held, exception)
    _report(task, held, lambda: runtime_of(task.app).attempts.fail(held.ref, failure), bare_failure(exception))


def report_retry(task: Task[..., Any], reason: Any) -> None:
    """`task_retry`: the task asked Celery for another try; record it with the time Celery computed."""
    held = held_attempt(task.request)
    if held is None or not held.claim.granted or not isinstance(reason, Retry):
        return
    failure = retry_of(task, held, reason)
    _report(task, held, lambda: runtime_of(task.app).attempts.fail(held.ref, failure))


def report_unsignalled(task: Task[..., Any], state: str | None, outcome: Any) -> None:
    """`task_postrun`: record what no other signal has told of.

    That is a body which ended by `Ignore`, `Reject` or `self.replace`, or by a `BaseException` such as `SystemExit`, and one whose
    outcome Celery could not handle. Nobody would finish their steps.
    """
    held = held_attempt(task.request)
    if held is None or not held.claim.granted or held.reported:
        return
    if state in ("IGNORED", "REJECTED"):
        _report_discarded(task, held, state)
    elif state == "SUCCESS":
        report_success(task, outcome)
    elif state == "RETRY":
        report_retry(task, outcome)
    else:
        exception = outcome if isinstance(outcome, BaseException) else sys.exception()
        if exception is not None and not ends_process(exception):
            _report_failure(task, what_was_raised(exception))


def _report_discarded(task: Task[..., Any], held: HeldAttempt, state: str) -> None:
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


def _report(
    task: Task[..., Any], held: HeldAttempt, report: Callable[[], object], otherwise: Failure | None = None
) -> None:
    """Make a report; where it cannot be recorded, whatever is tried, the attempt has failed `otherwise`."""
    held.reported = True
    runtime = runtime_of(task.app)
    try:
        persist(report, retry_s=runtime.settings.report_retry_s)
    except Exception as error:
        if may_succeed_later(error):
            logger.exception("could not report on %s; its lease will run out, and it is tried again", held.ref.task_id)
            return
        logger.exception("could not report on %s as it ended; it is tried once more", held.ref.task_id)
        _report_once_more(runtime, held, report, otherwise)


def _report_once_more(
    runtime: Runtime, held: HeldAttempt, report: Callable[[], object], otherwise: Failure | None
) -> None:
    """What nobody foresaw may pass, and a result that exists must not be lost with it; reports are idempotent by their token."""
    try:
        persist(report, retry_s=runtime.settings.report_retry_s)
    except Exception as error:
        logger.exception("could not report on %s as it ended; it is recorded as failed", held.ref.task_id)
        failure = otherwise or Failure("unusable", f"its outcome cannot be recorded: {type(error).__name__}")
        _fail(runtime, held, failure)


def _fail(runtime: Runtime, held: HeldAttempt, failure: Failure) -> None:
    try:
        persist(lambda: runtime.attempts.fail(held.ref, failure), retry_s=runtime.settings.report_retry_s)
    except Exception:  # nothing is left to try; a receiver that raised would only be logged too
        logger.exception("could not report on %s; its lease will run out and the step is tried again", held.ref.task_id)


def persist(call: Callable[[], T], *, retry_s: float) -> T:
    """Call until the database has taken it, for at most `retry_s`: it may be away, full, or between two primaries.

    Claims and reports are idempotent by their token, so one whose answer was lost is simply made again.
    """
    return retry_call(call, when=may_succeed_later, backoff=_REPORT_PAUSES, stop=stop_after_delay(retry_s))
