"""Sends a commit's messages and events in one write, where one Redis takes both.

A step that completes makes one message due and has one event to tell. By two clients on two connections these are two writes, two
readings and two wake-ups of Redis, each dearer than what it says. Where it cannot be done in one, or has just failed, the
dispatcher and the publisher each send their own, as they do for other brokers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interlock.core.fault_points import fault_point
from interlock.signals.events.publisher import FEW

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core.events import Effects
    from interlock.signals.events.publisher import EventPublisher

    from .dispatcher import Dispatcher

__all__ = ["CombinedSend"]


class CombinedSend:
    """An after-commit handler of `Database`, in the place of others.

    Args:
        dispatcher: Publishes messages.
        publisher: Publishes events.
        between: What else follows from a commit, between messages and events.
    """

    def __init__(
        self, dispatcher: Dispatcher, publisher: EventPublisher, between: Callable[[Effects], None] | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._between = between

    def __call__(self, effects: Effects) -> None:
        """Send what a commit made due, and publish what it changed."""
        if self._send_combined(effects):
            return
        self._dispatcher(effects)
        if self._between is not None:
            self._between(effects)
        self._publisher(effects)

    def _send_combined(self, effects: Effects) -> bool:
        dispatches = effects.dispatches
        if not dispatches or effects.interrupts or len(dispatches) > FEW or len(effects.changes) > FEW:
            return False
        commands = self._dispatcher.redis_commands(dispatches, self._publisher.address)
        if commands is None:
            return False
        # Messages first: somebody waits for them.
        if not self._publisher.publish(effects.changes, wait=False, first=[command for _, command in commands]):
            return False
        for dispatch, _ in commands:
            fault_point("dispatch.published", dispatch.task_id)
        return True
