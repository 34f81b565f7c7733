"""A ready Celery app: `celery -A interlock.worker worker` from any folder.

Built-in defaults suit one machine; a `celeryconfig.py` on the path, the module named by CELERY_CONFIG_MODULE, and the
environment (INTERLOCK_BROKER_URL, and every setting as INTERLOCK_…) override them. Tasks are imported from the modules listed
in INTERLOCK_IMPORTS (comma-separated) or in `imports`.
"""

from __future__ import annotations

import os

from celery import Celery

from .installation import install

__all__ = ["app", "celery"]

_DEFAULTS = {
    "broker_url": "redis://127.0.0.1:6379/0",
    "interlock_database_url": "sqlite:///interlock.db",
    "broker_connection_retry_on_startup": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "worker_prefetch_multiplier": 1,
}


def _make() -> Celery:
    application = Celery("interlock", set_as_current=True)
    application.add_defaults(lambda: dict(_DEFAULTS))
    application.config_from_object(os.environ.get("CELERY_CONFIG_MODULE", "celeryconfig"), silent=True)
    if broker_url := os.environ.get("INTERLOCK_BROKER_URL"):
        application.conf.update(broker_url=broker_url)
    modules = [name.strip() for name in os.environ.get("INTERLOCK_IMPORTS", "").split(",") if name.strip()]
    if modules:
        application.conf.imports = (*application.conf.imports, *modules)
    return install(application)


app = _make()
celery = app  # the other name under which `celery -A` looks for one
