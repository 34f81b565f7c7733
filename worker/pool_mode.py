"""Tells the kinds of worker pools apart: does it fork children, and do bodies block MAIN?"""

from __future__ import annotations

from typing import Any

__all__ = ["blocks_main", "is_prefork"]


def is_prefork(worker: Any) -> bool:
    """Whether the pool of a Celery worker consists of processes that run one task at a time."""
    return bool(worker.pool_cls.__module__ == "celery.concurrency.prefork")


def blocks_main(worker: Any) -> bool:
    """Whether bodies run in MAIN itself, one at a time, so that its timers stand still meanwhile."""
    return bool(worker.pool_cls.__module__ == "celery.concurrency.solo")
