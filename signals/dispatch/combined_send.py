"""A commit's messages and events in one write, where one Redis takes both.

A step that completes has one message to send and one event to tell. By two clients on two connections these are two writes, two
readings and two wake-ups of Redis; each of them costs more than what it says. Where it cannot be done like this, or just has
failed, the dispatcher and the publisher each do their own, as they do for other brokers.

A pool's child that reports a result does not even wait for Redis to have taken the messages: it looks before it has something to
tell again, and what was refused, or lost with the connection, is given to the dispatcher then. One that has nothing more to
tell leaves it to the engine's look for missing messages, and to the sweeper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interlock.core.events import Effects
from interlock.core.fault_points import fault_point
from interlock.signals.deferred_work import is_ending
from interlock.signals.events.publisher import FEW

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from interlock.core.events import Dispatch
    from interlock.signals.events.publisher import EventPublisher

    from .dispatcher import Dispatcher

__all__ = ["QuickPost"]


class QuickPost:
    """An after-commit handler of `Database`, in the place of others.

    Args:
        dispatcher: Publishes messages.
        between: What else is told of a commit, between messages and events.
        publisher: Publishes events.
    """

    def __init__(
        self, dispatcher: Dispatcher, publisher: EventPublisher, between: Callable[[Effects], None] | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._publisher = publisher
        self._between = between
        self._unanswered: Sequence[Dispatch] = ()

    def __call__(self, effects: Effects) -> None:
        """Send what a commit made due, and tell what it changed."""
        unanswered, self._unanswered = self._unanswered, ()
        if unanswered and not self._publisher.settle():
            self._dispatcher(Effects(dispatches=list(unanswered)))
        if self._post(effects):
            return
        self._dispatcher(effects)
        if self._between is not None:
            self._between(effects)
        self._publisher(effects)

    def _post(self, effects: Effects) -> bool:
        dispatches = effects.dispatches
        if not dispatches or effects.interrupts or len(dispatches) > FEW or len(effects.changes) > FEW:
            return False
        commands = self._dispatcher.redis_commands(dispatches, self._publisher.address)
        if commands is None:
            return False
        # Messages first: somebody waits for them.
        ahead, hurry = [command for _, command in commands], is_ending()
        if not self._publisher.publish(effects.changes, wait=False, ahead=ahead, hurry=hurry):
            return False
        if hurry:
            # Of an argument that cannot be had, a commit was told in the midst of this.
            self._unanswered = [*self._unanswered, *(dispatch for dispatch, _ in commands)]
        for dispatch, _ in commands:
            fault_point("dispatch.published", dispatch.task_id)
        return True
