"""From the database to running bodies: attempts that are to stop, told to the workers that hold them.

A broadcast over Celery's remote control is quick and may be lost; the heartbeat finds what it missed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from interlock.core.fault_points import fault_point
from interlock.signals.broker_errors import BROKER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

    from interlock.core.events import Effects, Interrupt

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
        by_mode: dict[str, list[Interrupt]] = {}
        for interrupt in effects.interrupts:
            by_mode.setdefault(interrupt.mode, []).append(interrupt)
        if not by_mode or not fault_point("interrupt.broadcast"):
            return
        try:
            for mode, interrupts in by_mode.items():
                for start in range(0, len(interrupts), _IDS_IN_ONE_MESSAGE):
                    self._broadcast(mode, interrupts[start : start + _IDS_IN_ONE_MESSAGE])
        except BROKER_ERRORS as error:
            logger.warning("could not broadcast an interrupt (%s); the heartbeat will tell", type(error).__name__)

    def _broadcast(self, mode: str, interrupts: Sequence[Interrupt]) -> None:
        arguments: dict[str, Any] = {"task_ids": [interrupt.task_id for interrupt in interrupts], "mode": mode}
        carriers = {one.task_id: one.carrier_id for one in interrupts if one.carrier_id is not None}
        if carriers:
            arguments["carriers"] = carriers
        self._app.control.broadcast(INTERRUPT_COMMAND, arguments=arguments)
