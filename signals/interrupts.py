"""From the database to running bodies: attempts that are to stop, told to the workers that hold them.

A broadcast over Celery's remote control is quick and may be lost; the heartbeat finds what it missed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .broker_errors import BROKER_ERRORS

if TYPE_CHECKING:
    from celery import Celery

    from interlock.core.events import Effects

__all__ = ["INTERRUPT_COMMAND", "InterruptBroadcaster"]

logger = logging.getLogger("interlock.interrupts")

INTERRUPT_COMMAND = "interlock_interrupt"
_IDS_IN_ONE_MESSAGE = 500


class InterruptBroadcaster:
    """Broadcasts interrupts; an after-commit handler of `Database`."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def __call__(self, effects: Effects) -> None:
        """Tell every worker which attempts are to stop."""
        by_mode: dict[str, list[str]] = {}
        for interrupt in effects.interrupts:
            by_mode.setdefault(interrupt.mode, []).append(interrupt.task_id)
        try:
            for mode, task_ids in by_mode.items():
                for start in range(0, len(task_ids), _IDS_IN_ONE_MESSAGE):
                    self._app.control.broadcast(
                        INTERRUPT_COMMAND,
                        arguments={"task_ids": task_ids[start : start + _IDS_IN_ONE_MESSAGE], "mode": mode},
                    )
        except BROKER_ERRORS as error:
            logger.warning("could not broadcast an interrupt (%s); the heartbeat will tell", type(error).__name__)
