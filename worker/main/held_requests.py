"""The steps whose bodies a worker's pool runs at this moment, as MAIN knows them."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from celery.worker import state as worker_state

from interlock.signals.step_header import read_header

__all__ = ["HeldRequests"]


class HeldRequests:
    """Celery's requests of steps: those that it calls active, and those that a foreign revoke made it forget."""

    def __init__(self) -> None:
        self._received: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self._forgotten: list[Any] = []

    def received(self, request: Any) -> None:
        """Know a step's request as long as the pool does."""
        self._received[request.id] = request

    def keep(self, task_id: str) -> None:
        """Keep a request that a foreign revoke has told softly: Celery forgets it at once, and its body may still run."""
        if task_id in self._received:
            self._forgotten.append(self._received[task_id])

    def now(self) -> list[Any]:
        """The requests."""
        self._forgotten = [request for request in self._forgotten if _is_running(request)]
        active = [request for request in worker_state.active_requests if read_header(request) is not None]
        return [*active, *self._forgotten]

    def ids(self) -> list[str]:
        """Their Celery ids."""
        return [request.id for request in self.now()]


def _is_running(request: Any) -> bool:
    """Whether the pool still waits for the body's outcome."""
    job = request._apply_result and request._apply_result()  # noqa: SLF001 - Celery knows it by nothing else
    return job is not None and not job.ready()
