"""The mixin of every task: `before_start` keeps a body without a claim from running, and retries publish nothing.

A signal receiver cannot stop a task (Celery logs what it raises and runs the body); `Task.before_start` can. And a task's own
`self.retry` must not publish, because the database decides when there is a next attempt.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.exceptions import Ignore, Retry

from interlock.core.fault_points import fault_point
from interlock.signals.step_header import read_header
from interlock.signals.steps.held_attempt import StepInterrupted, held_attempt

from .step_process import step_process

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["StepMixin", "wrap_tasks"]

logger = logging.getLogger("interlock.worker")


class StepMixin(Task):  # type: ignore[type-arg] # not subscriptable at run time
    """Mixed in before a task's own class; without our header a task behaves as always."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Let the body run only where the attempt was claimed.

        Raises:
            Ignore: It was not; nothing is stored and no outcome is signalled.
        """
        held = held_attempt(self.request)
        if held is None:
            if read_header(self.request) is not None:
                logger.error("step %s came without a claim; it is not run", task_id)
                raise Ignore
        elif not held.claim.granted:
            logger.info("step %s is not run: %s", task_id, held.claim.reason)
            raise Ignore
        super().before_start(task_id, args, kwargs)
        if held is not None:
            fault_point("body.begin", task_id)
            step_process.interrupter.enter(self, held)

    def retry(self, *args: Any, **options: Any) -> Retry:
        """Celery's `retry`, remembered: Celery would run the task again whatever its body does after this call.

        So a body that goes on (`throw=False`, or an `except` around the call) and returns has no result yet.
        """
        held = held_attempt(self.request)
        cause = {**dict(zip(("args", "kwargs", "exc"), args, strict=False)), **options}.get("exc")
        if held is not None:
            held.retry_cause = cause if isinstance(cause, BaseException) else None
        try:
            asked: Retry = super().retry(*args, **options)
        except Retry as raised:
            if held is not None:
                held.retry = raised
            raise
        if held is not None:
            held.retry = asked
        return asked

    def signature_from_request(self, request: Any = None, *args: Any, **options: Any) -> Any:
        """What `self.retry` would publish. For a step it is only a description: sending it does nothing."""
        signature: Any = super().signature_from_request(request, *args, **options)
        if held_attempt(request or self.request) is not None:
            signature.apply_async = _not_sent
        return signature


def _not_sent(*args: Any, **options: Any) -> None:
    """Stand in for `Signature.apply_async` in Celery's retry."""


def wrap_tasks(app: Celery) -> None:
    """Give every registered task the mixin, before the pool starts and builds their tracers.

    Setting the app's task class would miss tasks with a base of their own, with an overridden `before_start`, and those
    registered by hand.
    """
    app.finalize()
    for name, task in app.tasks.items():
        cls: Any = type(task)
        if name.startswith("celery.") or isinstance(task, StepMixin):
            continue
        # An interruption is asked for: Celery is to log it as expected, without the traceback of an error.
        task.throws = (*task.throws, StepInterrupted)
        task.__class__ = type(cls.__name__, (StepMixin, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__})
