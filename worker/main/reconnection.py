"""The bootstep of MAIN's connection to the broker: before the first message is taken, and when the broker is lost."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import bootsteps

from .engine_step import current_supervisor
from .unacked_messages import skip_broker_copies

if TYPE_CHECKING:
    from kombu import Connection

__all__ = ["ReconnectStep"]

logger = logging.getLogger("interlock.worker")


class ReconnectStep(bootsteps.StartStopStep):
    """A step of the consumer, which Celery starts before the first message is taken, and stops when the broker is lost.

    Until the broker is back MAIN waits for it, and ticks no more.
    """

    requires = ("celery.worker.consumer:Connection",)

    def start(self, parent: Any) -> None:
        """Take no message before the engine is there; it has long been at a reconnection."""
        _survive_closing(parent.connection)
        supervisor = current_supervisor()
        if supervisor is not None:
            if not supervisor.settings.broker_copies:
                skip_broker_copies(parent.connection)
            supervisor.await_engine()

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's protocol
        """Let the bodies that run keep their claims, however long the broker is away."""
        supervisor = current_supervisor()
        if supervisor is not None:
            supervisor.leave_alone()


def _survive_closing(connection: Connection) -> None:
    """Have MAIN, and the bodies with it, live on when the broker is lost while messages are taken that are not acknowledged.

    Celery closes the lost connection twice. At the second time kombu's Redis channel gives those messages back, and looks for the
    address in a transport that the first time has taken away; MAIN ends by the AttributeError. The messages are lost with the
    broker, or come again after its visibility timeout; either way the sweeper and the claims know what to do.
    """
    close = connection.close

    def close_what_is_there() -> None:
        try:
            close()
        except AttributeError as error:
            logger.debug("the lost connection to the broker was half closed already: %s", error)

    connection.close = close_what_is_there  # type: ignore[method-assign] # of this connection alone
