"""The worker bootstep that makes, starts and stops the supervisor."""

from __future__ import annotations

import os
from typing import Any

from celery import bootsteps

from .supervisor import Supervisor

__all__ = ["EngineStep", "current_supervisor"]

_current: Supervisor | None = None


def current_supervisor() -> Supervisor | None:
    """This MAIN process's supervisor; None elsewhere, also in children forked from it."""
    return _current if _current is not None and _current.pid == os.getpid() else None


class EngineStep(bootsteps.StartStopStep):
    """The worker bootstep. Celery starts it before or after the pool, as it comes; what children need is made in `create`."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._supervisor: Supervisor | None = None

    def create(self, worker: Any) -> None:
        """Make the supervisor: every step is created before the first one starts, so before a child is forked."""
        global _current  # noqa: PLW0603 - one MAIN per process, and signal receivers have to find it
        self._supervisor = _current = Supervisor(worker)

    def start(self, worker: Any) -> None:  # noqa: ARG002 - Celery's protocol
        """Start the engine."""
        if self._supervisor is not None:
            self._supervisor.start()

    def close(self, worker: Any) -> None:
        """The first sign of a shutdown: `stop` may come only when the pool has been joined."""
        self.stop(worker)

    def stop(self, worker: Any) -> None:  # noqa: ARG002 - Celery's protocol
        """Begin a shutdown; safe to call twice."""
        if self._supervisor is not None:
            self._supervisor.stop()

    def terminate(self, worker: Any) -> None:
        """Cold shutdown: hand the steps on at once, not when their leases end."""
        self.stop(worker)
        if self._supervisor is not None:
            self._supervisor.abandon()
