"""`install(app)`: makes any Celery app an Interlock app. Tasks, queues and routing stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import signals
from celery.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker import state as worker_state
from celery.worker.control import control_command

from interlock.core.errors import ConfigurationError
from interlock.core.settings import Settings
from interlock.signals.dispatch.interrupt_broadcast import INTERRUPT_COMMAND, read_interrupts
from interlock.signals.step_header import read_header

from .child.run_through import prepare_run_through
from .child.step_mixin import wrap_tasks
from .child.step_process import step_process
from .interrupt_notes import SOFT_SIGNAL
from .main.engine_step import EngineStep, current_supervisor
from .main.payload_hiding import hide_payloads, hide_settings
from .main.reconnection import ReconnectStep

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["install"]

_installed: list[Celery] = []

# How an attempt may end without its child being able to say so.
_SEEN_BY_MAIN = {WorkerLostError: "worker_lost", TimeLimitExceeded: "timeout"}


def install(app: Celery) -> Celery:
    """Make `app` an Interlock app; a second call does nothing.

    Its workers claim and report the steps that they run, and start an engine process (control queue, sweeper, heartbeat)
    each. Tasks that are not sent as steps behave as before. The settings are `interlock_…` in the app's configuration or
    `INTERLOCK_…` in the environment; `interlock_database_url` is the one that must be there.

    Returns:
        The app.
    """
    if any(known is app for known in _installed):
        return app
    _installed.append(app)
    hide_settings(app)
    app.steps["worker"].add(EngineStep)
    app.steps["consumer"].add(ReconnectStep)
    signals.worker_init.connect(_on_worker_init, weak=False, dispatch_uid="interlock.worker_init")
    signals.worker_shutdown.connect(_on_worker_shutdown, weak=False, dispatch_uid="interlock.worker_shutdown")
    return app


def _on_worker_init(sender: Any, **_: Any) -> None:
    """Before the pool starts: wrap the tasks, and listen to what becomes of them in children that are forked later."""
    if not any(known is sender.app for known in _installed):
        return
    wrap_tasks(sender.app)
    prepare_run_through(sender)
    for signal, receiver in (
        (signals.task_prerun, _on_prerun),
        (signals.task_success, _on_success),
        (signals.task_failure, _on_failure),
        (signals.task_retry, _on_retry),
        (signals.task_postrun, _on_postrun),
        (signals.task_received, _on_received),
        (signals.task_unknown, _on_unknown),
        (signals.task_revoked, _on_revoked),
    ):
        signal.connect(receiver, weak=False, dispatch_uid=f"interlock.{receiver.__name__}")
    if not _payloads_may_be_shown(sender.app):
        hide_payloads(sender.app)


def _payloads_may_be_shown(app: Celery) -> bool:
    try:
        return Settings.load(app.conf).show_payloads
    except ConfigurationError:  # the engine process says what is wrong with them
        return False


def _on_worker_shutdown(**_: Any) -> None:
    supervisor = current_supervisor()
    if supervisor is not None:
        supervisor.close()


def _on_prerun(task_id: str, task: Any, **_: Any) -> None:
    supervisor = current_supervisor()
    if supervisor is not None:
        supervisor.hold_through_body()
    step_process.on_prerun(task, task_id)


def _on_success(sender: Any, result: Any, **_: Any) -> None:
    step_process.on_success(sender, result)


def _on_failure(sender: Any, exception: BaseException, **_: Any) -> None:
    supervisor = current_supervisor()
    if supervisor is not None and supervisor.pool_is_prefork:
        # What else arrives in MAIN (Reject) has been reported by the child.
        cause = next((cause for kind, cause in _SEEN_BY_MAIN.items() if isinstance(exception, kind)), None)
        if cause is not None:
            supervisor.tell_end(sender.request, cause, f"{type(exception).__name__}: {exception}")
        return
    step_process.on_failure(sender, exception)


def _on_retry(sender: Any, reason: Any = None, **_: Any) -> None:
    supervisor = current_supervisor()
    if supervisor is not None and supervisor.pool_is_prefork:
        return  # Celery says so of tasks that it cancels for a shutdown; the supervisor hands them on
    step_process.on_retry(sender, reason)


def _on_postrun(task: Any, state: str | None = None, retval: Any = None, **_: Any) -> None:
    step_process.on_postrun(task, state, retval)


def _on_unknown(id: str, name: str, message: Any = None, **_: Any) -> None:  # noqa: A002 - Celery's name
    """A message for a task that this worker does not know: Celery drops it, so the engine has to hear of it."""
    supervisor = current_supervisor()
    header = getattr(message, "headers", None) or {}
    identity = header.get("interlock")
    if supervisor is not None and isinstance(identity, dict):
        supervisor.tell_engine({"unknown": {**identity, "task_id": id, "task": name}})


def _on_received(request: Any, **_: Any) -> None:
    supervisor = current_supervisor()
    if supervisor is not None and read_header(request) is not None:
        supervisor.held.received(request)


def _on_revoked(
    request: Any,
    *,
    terminated: bool = False,
    signum: int | None = None,
    expired: bool = False,
    **_: Any,
) -> None:
    """MAIN has discarded a message or ended a body; whether by us or by somebody else, the database knows."""
    supervisor = current_supervisor()
    header = read_header(request)
    if supervisor is None or header is None:
        return
    if terminated and request.id not in worker_state.revoked:
        # Ended by us, which the database knows; or a process that a revoke has spared once: Celery calls its death one too.
        supervisor.tell_end(request, "worker_lost", "its process was lost")
        return
    softly = signum == SOFT_SIGNAL
    if softly:
        supervisor.held.keep(request.id)
    how = {"terminated": bool(terminated), "expired": bool(expired), "softly": softly}
    identity = {"run_id": header.run_id, "step_id": header.step_id, "task_id": request.id}
    supervisor.tell_engine({"revoked": {**identity, **how}})


@control_command(name=INTERRUPT_COMMAND, args=[("task_ids", list), ("mode", str)], visible=False)
def _interrupt(
    state: Any,  # noqa: ARG001 - Celery's protocol
    **document: Any,
) -> dict[str, int]:
    """Signal the bodies of these attempts, where this worker holds them; see `write_interrupts`."""
    interrupts = read_interrupts(document)
    supervisor = current_supervisor()
    if supervisor is not None:
        supervisor.interrupt(interrupts)
    return {"ok": len(interrupts)}
