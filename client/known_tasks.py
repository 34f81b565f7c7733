"""The names of an app's tasks, by which a plan with an unknown task is refused.

Not simply `app.tasks`: Celery gives every app of a process the tasks of every other one, and all `shared_task`s. A producer's app
without tasks would seem to have some as soon as anything else in the process declares one, and refuse every plan.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.local import PromiseProxy, Proxy

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["known_tasks"]


def known_tasks(app: Celery) -> frozenset[str] | None:
    """The names of the app's tasks; None where it has none of its own, and is only a producer's.

    It has some where it names modules to import (`include`, `imports`, `autodiscover_tasks`), or where a task was declared on it.
    """
    loader: Any = app.loader  # its stubs leave task_modules out
    loader.import_default_modules()
    app.finalize()
    tasks = {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}
    if not loader.task_modules and all(_came_from_elsewhere(task, app) for task in tasks.values()):
        return None
    return frozenset(tasks) or None


def _came_from_elsewhere(task: Task[..., Any], app: Celery) -> bool:
    """Whether the module that defines the task shows that it was not declared on this app; False where it does not tell."""
    made: type = type(task)
    declared: Any = getattr(sys.modules.get(made.__module__), made.__name__, None)
    kind = type(declared)  # not isinstance, which would evaluate a proxy: that is for its own app to do
    if kind is Proxy:
        return True  # a shared task: anybody's
    if kind is PromiseProxy:
        # Those of this app were evaluated when it was finalized.
        return not declared.__evaluated__() or declared.app is not app
    return issubclass(kind, Task) and declared.app is not app
