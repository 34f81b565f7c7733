"""Tells the workers which bodies are to stop, by a broadcast of Celery's remote control.

It is quick and may be lost; the heartbeat finds what it missed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, cast

from interlock.core.events import Interrupt
from interlock.core.fault_points import fault_point
from interlock.signals.broker_errors import BROKER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery import Celery

    from interlock.core.events import Effects

__all__ = ["INTERRUPT_COMMAND", "InterruptBroadcaster", "read_interrupts", "write_interrupts"]

logger = logging.getLogger("interlock.interrupts")

INTERRUPT_COMMAND: Final = "interlock_interrupt"
_IDS_IN_ONE_MESSAGE: Final = 500


class InterruptBroadcaster:
    """Broadcasts interrupts; an after-commit handler of `Database`."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def __call__(self, effects: Effects) -> None:
        """Tell every worker which attempts are to stop."""
        if not effects.interrupts or not fault_point("interrupt.broadcast"):
            return
        try:
            for arguments in write_interrupts(effects.interrupts):
                self._app.control.broadcast(INTERRUPT_COMMAND, arguments=arguments)
        except BROKER_ERRORS as error:
            logger.warning("could not broadcast an interrupt (%s); the heartbeat will tell", type(error).__name__)


def write_interrupts(interrupts: Sequence[Interrupt]) -> list[dict[str, Any]]:
    """Interrupts as JSON, one document for each mode and for 500 of them.

    Returns:
        `{"task_ids": […], "mode": …}`, and `"carriers"`: the message's id for each attempt that has come by another's.
    """
    by_mode: dict[str, list[Interrupt]] = {}
    for interrupt in interrupts:
        by_mode.setdefault(interrupt.mode, []).append(interrupt)
    documents = []
    for mode, alike in by_mode.items():
        for start in range(0, len(alike), _IDS_IN_ONE_MESSAGE):
            some = alike[start : start + _IDS_IN_ONE_MESSAGE]
            document: dict[str, Any] = {"task_ids": [each.task_id for each in some], "mode": mode}
            carriers = {each.task_id: each.message_id for each in some if each.message_id != each.task_id}
            documents.append({**document, "carriers": carriers} if carriers else document)
    return documents


def read_interrupts(document: Mapping[str, Any]) -> list[Interrupt]:
    """Interrupts from what `write_interrupts` has made of them."""
    carriers = document.get("carriers") or {}
    mode = cast("Any", document.get("mode", "soft"))
    return [Interrupt(task_id, carriers.get(task_id, task_id), mode) for task_id in document.get("task_ids", ())]
