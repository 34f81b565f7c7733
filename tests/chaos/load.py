"""The producer: enqueues the plans one after the other, and tries each again until it is told that it is stored."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from interlock.core.errors import InterlockError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from interlock import Client

    from .plans import Plan

__all__ = ["Producer", "may_pass"]

_PAUSE_S = 0.3


def may_pass(error: Exception) -> bool:
    """Whether the same call may succeed a little later: the broker, the engines or the database are away."""
    if isinstance(error, InterlockError):
        return error.retryable or getattr(error, "code", "") == "rate_limited"
    return isinstance(error, SQLAlchemyError | OSError)


class Producer(threading.Thread):
    """Enqueues at a constant rate.

    Args:
        plans: What.
        direct: Clients with a database, by session.
        remote: Clients without one, by session.
        spread_s: How long all of it is to take.
        enqueued: Told of each run as soon as its id is known.

    Attributes:
        run_ids: Of each plan, by its name.
        repeated: How many calls had to be made again.
        failure: What ended this thread before its time.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        *,
        direct: Mapping[str, Client],
        remote: Mapping[str, Client],
        spread_s: float,
        enqueued: Callable[[Plan, str], None],
    ) -> None:
        super().__init__(name="producer", daemon=True)
        self._plans = plans
        self._direct, self._remote = direct, remote
        self._pace_s = spread_s / max(len(plans), 1)
        self._enqueued = enqueued
        self._told = threading.Event()
        self.run_ids: dict[str, str] = {}
        self.repeated = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Enqueue everything."""
        began = time.monotonic()
        try:
            for place, plan in enumerate(self._plans):
                if self._told.wait(max(0.0, began + place * self._pace_s - time.monotonic())):
                    return
                run_id = self._enqueue(plan)
                self.run_ids[plan.name] = run_id
                self._enqueued(plan, run_id)
        except Exception as error:  # noqa: BLE001 - shown in the report, where it is a violation
            self.failure = error

    def stop(self) -> None:
        """Enqueue no more."""
        self._told.set()

    def _enqueue(self, plan: Plan) -> str:
        client = (self._remote if plan.remote else self._direct)[plan.session_id]
        while True:
            try:
                return client.enqueue(plan.workflow, idempotency_key=plan.name, request_id=f"enqueue-{plan.name}")
            except Exception as error:
                if not may_pass(error) or self._told.wait(_PAUSE_S):
                    raise
                self.repeated += 1
