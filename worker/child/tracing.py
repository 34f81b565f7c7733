"""Around Celery's tracers: a pool's child asks for claims before them, waits for commits behind them, and runs through.

Celery hands a child one message and calls the task's tracer, which sends the signals and cleans up. Here the tracers of all tasks
that can be steps are wrapped, once per child. What is not a step passes by. Other pools are left alone, where a process runs many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import signals

from interlock.signals.deferred_work import ending
from interlock.signals.run_through import riding
from interlock.signals.runtime import runtime_of
from interlock.signals.step_header import HEADER, parse_header
from interlock.signals.steps.receivers import begin_claim, expect, forget_expected
from interlock.worker import pool_mode

from .body_interruption import interrupter
from .run_through import RunThrough
from .step_mixin import StepMixin

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery, Task

    from interlock.signals.step_header import StepHeader

    from .run_through import Tracer

__all__ = ["prepare"]


def prepare(app: Celery) -> None:
    """In MAIN: have each child wrap its tracers, once Celery has built them."""

    def on_process_init(**_: Any) -> None:
        if pool_mode.is_prefork():
            _wrap(app)

    signals.worker_process_init.connect(on_process_init, weak=False, dispatch_uid="interlock.tracing")


def _wrap(app: Celery) -> None:
    tasks = {name: task for name, task in app.tasks.items() if isinstance(task, StepMixin)}
    tracers = {name: _to_the_end(task.__trace__) for name, task in tasks.items()}
    run_through = RunThrough(app, tracers) if pool_mode.may_run_through() else None
    for name, task in tasks.items():
        task.__trace__ = _around(app, task, tracers[name], run_through)


def _to_the_end(tracer: Tracer) -> Tracer:
    """A tracer that returns when what its step has asked for is committed."""

    def trace(uuid: str, args: Any, kwargs: Any, request: dict[str, Any] | None = None) -> Any:
        with ending():
            return tracer(uuid, args, kwargs, request)

    return trace


def _around(app: Celery, task: Task[..., Any], tracer: Tracer, run_through: RunThrough | None) -> Callable[..., Any]:
    def trace(uuid: str, args: Any, kwargs: Any, request: dict[str, Any] | None = None) -> Any:
        header = parse_header(request.get(HEADER)) if request else None
        if request is None or header is None:
            return tracer(uuid, args, kwargs, request)
        ride = None if run_through is None else run_through.ride(task, uuid, request)
        try:
            _ask_for_claim(app, uuid, header, request)
            if ride is None or run_through is None:
                return tracer(uuid, args, kwargs, request)
            try:
                with riding(ride):
                    outcome = tracer(uuid, args, kwargs, request)
                    while (held := ride.take()) is not None:
                        run_through.go_on(*held, request)
                    return outcome
            finally:
                runtime_of(app).flush_events()
        finally:
            forget_expected()

    return trace


def _ask_for_claim(app: Celery, uuid: str, header: StepHeader, request: dict[str, Any]) -> None:
    # Of what was delivered before, the tracer may decide that it is done with (`worker_deduplicate_successful_tasks`).
    if not (request.get("delivery_info") or {}).get("redelivered"):
        interrupter.install()  # from here on a signal must not tear what is under way
        expect(uuid, begin_claim(app, header, uuid, request.get("hostname")))
