"""Asks a Celery app: its settings, whether Interlock is in it, and where it sends tasks."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from interlock.core.errors import InterlockError
from interlock.core.machine.guard_rules_file import load_guard_rules
from interlock.core.settings import Settings
from interlock.worker.main.engine_step import EngineStep
from interlock.worker.main.supervisor import import_path

from .facts import AppFacts, Configuration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery import Celery

__all__ = ["app_facts", "configuration", "routes"]

logger = logging.getLogger("interlock.doctor")

# Those that are compared. Others (the addresses, the keys) are masked where a worker tells its settings.
_COMPARED: Final = ("channel_prefix", "heartbeat_s", "lease_s", "redispatch_max_s", "redispatch_s", "sweep_s")


def app_facts(app: Celery, settings: Settings) -> AppFacts:
    """Look at an app whose modules are imported, without a connection to anything."""
    tasks: Iterable[Any] = app.tasks.values()
    late = {task.name: task for task in tasks if getattr(task, "acks_late", False)}
    return AppFacts(
        is_installed=EngineStep in app.steps["worker"],
        import_path=settings.app or import_path(app),
        guards_fault=_guards_fault(settings),
        late_tasks=tuple(sorted(late)),
        requeued_tasks=tuple(sorted(name for name, task in late.items() if task.reject_on_worker_lost)),
    )


def configuration(where: str, celery: Mapping[str, Any]) -> Configuration:
    """Settings of Celery, and those of Interlock among them, without what the environment of that process says."""
    given = {f"interlock_{name}": celery.get(f"interlock_{name}") for name in _COMPARED}
    try:
        interlock = Settings.load(given, {})
    except InterlockError:
        interlock = None
    return Configuration(where=where, celery=celery, interlock=interlock)


def routes(app: Celery, tasks: Iterable[str]) -> dict[str, str]:
    """The queue to which the app routes each task, where it can say."""
    found = {}
    for task in tasks:
        try:
            queue = app.amqp.router.route({}, task)["queue"]
        except Exception:  # a router is the user's code
            logger.debug("cannot route %s", task, exc_info=True)
            continue
        found[task] = str(getattr(queue, "name", queue))
    return found


def _guards_fault(settings: Settings) -> str | None:
    if settings.guards_file is None:
        return None
    try:
        load_guard_rules(settings.guards_file)
    except (InterlockError, OSError) as fault:
        return str(fault)
    return None
