"""Steps of the fault suite's app, and waiting for what becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from interlock import Step
from interlock.core.model.retry import RetryPolicy
from tests.faults.conftest import APP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.worker.deployment import Deployment

__all__ = ["SOON", "blocked", "held", "step", "task"]

SOON: Final = RetryPolicy(max_attempts=3, initial_delay_s=0.1, jitter=0)


def task(name: str) -> str:
    """The registered name of a task of the fault suite's app."""
    return f"{APP}.{name}"


def step(key: str, name: str, *args: Any, after: Sequence[str] = (), **options: Any) -> Step:
    """A step that runs a task of the fault suite's app; what is lost is tried again at once."""
    return Step(key, task(name), args, after=after, **{"retry": SOON, **options})


def blocked(deployment: Deployment) -> bool:
    """Whether somebody waits for a lock in the database; PostgreSQL alone can say."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with deployment.database.reading() as connection:
        return bool(connection.scalar(text(waiting)))


def held(key: str, gate: str, value: Any = None, *, name: str = "hold", **options: Any) -> Step:
    """A step whose body waits at a gate."""
    return step(key, name, gate, value, **options)
