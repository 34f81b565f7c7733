"""What MAIN knows of its pool and its children have to know: set before the fork, inherited by every child."""

from __future__ import annotations

from typing import Any

__all__ = ["is_prefork", "may_run_through", "set_pool_mode"]

_prefork = False
_runs_through = False


def set_pool_mode(worker: Any, *, prefork: bool) -> None:
    """In MAIN, before the pool starts: note what its children may do.

    Args:
        worker: Celery's. A time limit that is set for all its tasks would hit the later steps of a run-through.
        prefork: Whether its pool consists of processes that run one task at a time.
    """
    global _prefork, _runs_through  # noqa: PLW0603 - inherited by the children
    _prefork = prefork
    _runs_through = prefork and not (worker.time_limit or worker.soft_time_limit)


def is_prefork() -> bool:
    """Whether this is a prefork worker."""
    return _prefork


def may_run_through() -> bool:
    """Whether children may go on from step to step without a message."""
    return _runs_through
