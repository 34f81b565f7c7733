"""Keeps arguments and results of steps, and the secrets among our settings, out of Celery's log, `inspect` and events.

Celery logs results, names arguments in `inspect` and in events, and answers `inspect conf` to whoever can send a remote control
command. Only what concerns steps and `interlock_…` is changed here; other tasks, and exceptions, are shown as ever.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery import current_task
from celery.app import utils as celery_settings
from celery.utils.imports import symbol_by_name
from pydantic import SecretStr

from interlock.core.redaction import HIDDEN
from interlock.signals.step_header import HEADER, read_header

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["hide_payloads", "hide_settings"]

_KEYS = "interlock_signing_keys"
_ADDRESS = "INTERLOCK_REDIS_URL"  # Celery masks its own broker's, and whatever has DATABASE in its name


def hide_payloads(app: Celery) -> None:
    """Keep the payloads of steps out of the log, of `inspect`, and of events. Called before the pool starts."""
    tasks: list[Any] = [*app.tasks.values()]
    for task in tasks:
        request: Any = symbol_by_name(task.Request)
        if not issubclass(request, _RedactedRequest):
            task.Request = type(request.__name__, (_RedactedRequest, request), {"__module__": request.__module__})
    _add_filter("celery.app.trace", _without_result)
    _add_filter("celery.pool", _without_message)


def hide_settings(app: Celery) -> None:
    """Keep the secrets among our settings out of `celery report` and `celery inspect conf`."""
    settings: Any = celery_settings
    hidden = settings.HIDDEN_SETTINGS
    if _ADDRESS not in hidden.pattern:
        settings.HIDDEN_SETTINGS = re.compile(f"{hidden.pattern}|{_ADDRESS}", hidden.flags)
    if getattr(app, "configured", False):
        _fold_keys(app)
    else:
        app.on_after_configure.connect(_fold_keys, weak=False)


def _fold_keys(sender: Celery, **_: Any) -> None:
    """Hold the keys as text: of a mapping Celery would look for secret names among the sessions, and show the rest."""
    keys = sender.conf.get(_KEYS)
    if isinstance(keys, Mapping):
        sender.conf[_KEYS] = json.dumps(dict(keys), default=_plain_key)


def _plain_key(value: object) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return list(value) if isinstance(value, tuple | set | frozenset) else repr(type(value))


class _RedactedRequest:
    """Mixed in before Celery's own class of requests."""

    __slots__ = ()

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - Celery's signature
        """What `inspect` tells of a request: of a step's the shortened forms, which are hidden too."""
        parent: Any = super()
        told: dict[str, Any] = parent.info(safe=safe or read_header(self) is not None)
        return told

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's signature
        """Tell monitors, without a step's result."""
        if "result" in fields and read_header(self) is not None:
            fields["result"] = HIDDEN
        parent: Any = super()
        parent.send_event(type, **fields)


def _without_result(record: logging.LogRecord) -> bool:
    """Of `Task … succeeded in …: RESULT`, leave the result out."""
    if isinstance(record.args, dict) and "return_value" in record.args and _in_step():
        record.args = {**record.args, "return_value": HIDDEN}
    return True


def _without_message(record: logging.LogRecord) -> bool:
    """Of `TaskPool: Apply …`, at level DEBUG, leave out the message, which has body and all."""
    if isinstance(record.args, tuple) and any(f"'{HEADER}'" in str(part) for part in record.args):
        record.args = (*record.args[:1], *[HIDDEN] * (len(record.args) - 1))
    return True


def _in_step() -> bool:
    return bool(current_task) and read_header(current_task.request) is not None


def _add_filter(name: str, keep: Any) -> None:
    logger = logging.getLogger(name)
    if keep not in logger.filters:
        logger.addFilter(keep)
