"""Celery apps by name: loading one, guessing which belongs to a workflow, and pointing one at an embedded server."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .failures import AppNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from celery import Celery

__all__ = ["FOREIGN_BROKERS", "app_path_near", "forget_foreign_brokers", "import_module", "load_app", "use_broker"]

FOREIGN_BROKERS: Final = (
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)
"""Variables that Celery reads before any configuration, so that they would win over what an embedded server says."""

_USUAL_NAMES: Final = ("", ".application", ".app", ".celery", ".celery_app", ".celeryapp")
"""Where the app of a package is usually found, relative to it."""


def load_app(name: str) -> Celery:
    """Import a Celery app by what `-A` takes: `module`, `module:attribute` or `package`.

    Raises:
        AppNotFound: There is no such module or no app in it, or importing it failed.
    """
    from celery import Celery
    from celery.app.utils import find_app

    _see_working_folder()
    try:
        app = find_app(name)
    except ModuleNotFoundError as error:
        raise AppNotFound(name, f"no module named {error.name!r}{_where()}") from error
    except AttributeError as error:
        raise AppNotFound(name, f"no Celery app there: {error}") from error
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise AppNotFound(name, f"importing it failed: {type(error).__name__}: {error}") from error
    if not isinstance(app, Celery):
        raise AppNotFound(name, f"is a {type(app).__name__}, not a Celery app: name it as module:attribute")
    return app


def import_module(name: str) -> ModuleType:
    """Import a module as `python -m` would, the working folder included.

    Raises:
        ImportError: There is none, or one that it imports is missing.
    """
    _see_working_folder()
    return importlib.import_module(name)


def app_path_near(module: ModuleType) -> str | None:
    """Find the Celery app that a workflow's module belongs to, as `module:attribute`; None where there is none.

    Looked at: the module itself, its package, and the usual places in that package (`application`, `app`, `celery`, …).
    """
    for candidate in _candidates(module):
        if attribute := _app_attribute(candidate):
            return f"{candidate.__name__}:{attribute}"
    return None


def use_broker(app: Celery, broker_url: str) -> None:
    """Make an app talk to this broker alone, whatever it was configured with. Not undone: for processes of one's own."""
    forget_foreign_brokers()
    app.conf.update(
        broker_url=broker_url,
        broker_read_url=None,
        broker_write_url=None,
        broker_use_ssl=None,
        broker_failover_strategy=None,
        broker_connection_retry_on_startup=True,
        result_backend=None,  # Interlock keeps results; that of production is not to be reached from here
    )
    _forget_connections(app)


def forget_foreign_brokers() -> None:
    """Drop from this process's environment what would lead Celery to another broker than its configuration names."""
    for name in FOREIGN_BROKERS:
        os.environ.pop(name, None)


def _forget_connections(app: Celery) -> None:
    """Close what the app has opened; Celery's pools would go on with the broker that they were made for."""
    pools: Any = app
    if pools._pool is not None:  # noqa: SLF001 - the property would open one
        pools.pool.force_close_all()
        pools._pool = pools.amqp._producer_pool = None  # noqa: SLF001 - as Celery does after a fork


def _candidates(module: ModuleType) -> Iterator[ModuleType]:
    yield module
    package = module.__package__
    if not package:
        return
    for suffix in _USUAL_NAMES:
        name = f"{package}{suffix}"
        if name in sys.modules:
            yield sys.modules[name]
        elif importlib.util.find_spec(name) is not None:
            yield importlib.import_module(name)


def _app_attribute(module: ModuleType) -> str | None:
    from celery import Celery

    found: dict[str, Any] = {name: value for name, value in vars(module).items() if isinstance(value, Celery)}
    return next((name for name in ("app", "celery", *found) if name in found), None)


def _see_working_folder() -> None:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def _where() -> str:
    return f" (looked in {Path.cwd()} and the environment)"
