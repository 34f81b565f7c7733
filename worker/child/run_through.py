"""Runs one step behind another in a pool's child without a message, each as a Celery task like any other (run-through).

In each child the tracers of all tasks are wrapped, once Celery has built them. Behind the tracer of a message's own step the next
one's is called, in a loop and not within the first, as long as the report of each brings the claim of another. MAIN knows nothing
of it: it gets the first task's outcome when the last one has ended, and acknowledges the message then (or has done so before).

Only prefork children do that: what runs in MAIN itself would keep it from its timers and its broker for too long.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.app.routes import MapRoute
from celery.exceptions import Reject
from celery.utils.imports import symbol_by_name

from interlock.core.attempts.claims import Claim
from interlock.core.attempts.outcomes import Failure
from interlock.core.plan.run_through import kind_of
from interlock.signals.dispatch.dispatcher import ArgumentsRefused, render_arguments
from interlock.signals.runtime import runtime_of
from interlock.signals.step_header import HEADER, next_kinds
from interlock.signals.steps.carried_request import CarriedRequests
from interlock.signals.steps.held_attempt import HeldAttempt
from interlock.signals.steps.receivers import persist
from interlock.signals.steps.run_through_session import RunThroughSession
from interlock.worker.interrupt_notes import InterruptNotes
from interlock.worker.pool_mode import is_prefork

from .step_mixin import StepMixin
from .step_process import step_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from celery import Celery, Task

    from interlock.core.attempts.claims import AttemptRef
    from interlock.core.events import Dispatch

    Tracer: TypeAlias = Callable[..., Any]

__all__ = ["RunThrough", "prepare_run_through"]

logger = logging.getLogger("interlock.worker")

_DEFAULT_STRATEGY = "celery.worker.strategy:default"


def prepare_run_through(worker: Any) -> None:
    """In MAIN: have each child of a worker's prefork pool wrap its tracers."""

    def on_process_init(**_: Any) -> None:
        # A time limit that the worker sets for all tasks would hit the later steps of a message.
        if is_prefork(worker) and not (worker.time_limit or worker.soft_time_limit):
            RunThrough(worker.app).wrap_tracers()

    signals.worker_process_init.connect(on_process_init, weak=False, dispatch_uid="interlock.run_through")


class RunThrough:
    """One child of the pool."""

    def __init__(self, app: Celery) -> None:
        self._app: Any = app
        self._tasks = {name: task for name, task in app.tasks.items() if isinstance(task, StepMixin)}
        self._tracers: dict[str, Tracer] = {name: task.__trace__ for name, task in self._tasks.items()}
        self._kinds: dict[tuple[str, str], frozenset[str]] = {}
        self._parent = os.getppid()
        notes = InterruptNotes.inherited()
        self._closing = None if notes is None else str(notes.closing)
        self._requests: CarriedRequests | None = None

    def wrap_tracers(self) -> None:
        """Wrap the tracer of every task that can be a step."""
        for name, task in self._tasks.items():
            task.__trace__ = self._wrapped(task, self._tracers[name])

    def _wrapped(self, task: Task[..., Any], tracer: Tracer) -> Tracer:
        def trace(uuid: str, args: Any, kwargs: Any, request: dict[str, Any] | None = None) -> Any:
            session = None if request is None else self._session(task, uuid, request)
            if session is None or request is None:
                return tracer(uuid, args, kwargs, request)
            step_process.session = session
            try:
                with runtime_of(self._app).events_in_background():
                    outcome = tracer(uuid, args, kwargs, request)
                    while (following := session.take_next()) is not None:
                        self._run(session, *following, request)
                    return outcome
            finally:
                step_process.session = None

        return trace

    # --- the next step ---------------------------------------------------------------------------------------------------

    def _run(self, session: RunThroughSession, dispatch: Dispatch, ref: AttemptRef, message: dict[str, Any]) -> None:
        """Run a step that is claimed already, as a message of its own would have.

        Args:
            session: Has claimed it.
            dispatch: Its attempt.
            ref: The same, with the token of the claim.
            message: The request of the message on which this process came.
        """
        try:
            arguments = self._arguments(dispatch, ref)
        except Exception:  # the first step's outcome must reach MAIN all the same
            logger.exception("could not run %s; its lease will run out and the step is tried again", ref.task_id)
            return
        if arguments is None:
            return
        args, kwargs = arguments
        if self._requests is None:
            self._requests = CarriedRequests(self._app, show_payloads=runtime_of(self._app).settings.show_payloads)
        held = HeldAttempt(ref, Claim(granted=True), session=session, has_own_message=False)
        request = self._requests.make(dispatch, held, args, kwargs, message)
        try:
            self._tracers[dispatch.task](dispatch.task_id, args, kwargs, request)
        except Reject:  # a message of its own would be rejected now; there is none, and the step was reported on
            logger.warning("%s raised Reject behind its body; it came without a message to reject", ref.task_id)

    def _arguments(self, dispatch: Dispatch, ref: AttemptRef) -> tuple[list[Any], dict[str, Any]] | None:
        """The step's arguments; None where they cannot be had, which fails it."""
        runtime = runtime_of(self._app)
        settings = runtime.settings
        try:
            return persist(
                lambda: render_arguments(dispatch, runtime.database, settings), retry_s=settings.report_retry_s
            )
        except ArgumentsRefused as refusal:
            failure = Failure("unusable", str(refusal))
            persist(lambda: runtime.attempts.fail(ref, failure), retry_s=settings.report_retry_s)
            return None

    # --- whether to run through --------------------------------------------------------------------------------------------

    def _session(self, task: Task[..., Any], message_id: str, request: Mapping[str, Any]) -> RunThroughSession | None:
        """The session of a message; None where no plan asks for one, or MAIN's timers would not follow it."""
        ahead = next_kinds(request.get(HEADER))
        if not ahead or _is_limited(task, request):
            return None
        limit_s = runtime_of(self._app).settings.run_through_s
        where = request.get("delivery_info") or {}
        kinds = self._kinds_at(where.get("exchange"), where.get("routing_key"))
        if not limit_s or not kinds:
            return None
        return RunThroughSession(message_id, kinds, ahead, limit_s=limit_s, may_continue=self._may_continue)

    def _may_continue(self) -> bool:
        """Not in a warm shutdown, and not as an orphan, whose steps nobody could interrupt."""
        return os.getppid() == self._parent and not (self._closing and os.path.exists(self._closing))  # noqa: PTH110 - per step

    def _kinds_at(self, exchange: str | None, routing_key: str | None) -> frozenset[str]:
        if exchange is None or routing_key is None:
            return frozenset()
        address = exchange, routing_key
        kinds = self._kinds.get(address)
        if kinds is None:
            kinds = self._kinds[address] = _kinds_at(self._app, address)
        return kinds


def _is_limited(task: Task[..., Any], request: Mapping[str, Any]) -> bool:
    return bool(any(request.get("timelimit") or ()) or task.time_limit or task.soft_time_limit)


def _kinds_at(app: Any, address: tuple[str, str]) -> frozenset[str]:
    """What is sent to an address: the steps that a child may go on to which has a message that came from there.

    Where a router is code, only it knows where a step goes; it may depend on the arguments.
    """
    amqp = app.amqp
    if not all(isinstance(route, MapRoute) for route in amqp.router.routes):
        return frozenset()
    names = [name for name, task in app.tasks.items() if _can_be_carried(task)]
    queues = [name for name in amqp.queues if _address(amqp.queues[name], {}) == address]
    kinds = []
    for queue in (None, *queues):
        for name in names:
            options = amqp.router.route({} if queue is None else {"queue": queue}, name)
            if _address(options.pop("queue", None), options) == address:
                kinds.append(kind_of(name, queue))
    return frozenset(kinds)


def _can_be_carried(task: Any) -> bool:
    """Whether MAIN would do nothing of its own about a message of this task."""
    if not isinstance(task, StepMixin) or task.rate_limit or _is_limited(task, {}):
        return False
    ours = all(
        cls.__module__.partition(".")[0] in ("celery", "interlock", "builtins")
        for cls in symbol_by_name(task.Request).__mro__
    )
    return ours and task.Strategy == _DEFAULT_STRATEGY


def _address(queue: Any, options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Exchange and routing key of a message with these options, as Celery chooses them."""
    exchange, routing_key = options.get("exchange"), options.get("routing_key")
    kind = options.get("exchange_type") or (queue.exchange.type if queue is not None else "direct")
    if queue is not None and kind == "direct" and not (exchange and routing_key):
        return "", queue.name
    if exchange is None and queue is not None:
        exchange, routing_key = queue.exchange.name, routing_key or queue.routing_key
    return None if exchange is None or routing_key is None else (str(exchange), str(routing_key))
