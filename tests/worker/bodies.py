"""What the bodies of test tasks write and wait for: a ledger in Redis, keyed by the step's id, and gates there.

A worker is told the ledger's address in its environment. Gates replace sleeping: a body waits until the test lets it pass.
"""

from __future__ import annotations

import json
import os
from contextlib import closing, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from celery import current_task
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["mark", "note", "pass_gate", "recorded"]

GATE_TIMEOUT_S = 120


def _ledger() -> Redis:
    # A body waits at its gate for longer than the client would wait for an answer by itself.
    return Redis.from_url(os.environ["TEST_LEDGER_URL"], decode_responses=True, socket_timeout=None)


@cache
def _kept_ledger(pid: int) -> Redis:  # noqa: ARG001 - a forked process has its own
    """For what is written twice in every body: a connection for each would cost more than the body."""
    return Redis.from_url(os.environ["TEST_LEDGER_URL"], decode_responses=True)


def _identity() -> str:
    """The step's id, which is its idempotency key; the Celery id of a task that is no step."""
    request = current_task.request
    return str((getattr(request, "interlock", None) or {}).get("step_id", request.id))


def note(what: str) -> int:
    """Append to the ledger of the step that runs here; returns how long it is now."""
    with closing(_ledger()) as redis:
        redis.rpush("ledger", f"{_identity()} {what} {os.getpid()}")
        return int(redis.rpush(f"ledger:{_identity()}", what))


def mark(what: str, identity: str) -> None:
    """Append to the ledger of something that is no step, from code that is no body."""
    with closing(_ledger()) as redis:
        redis.rpush(f"ledger:{identity}", what)


def pass_gate(name: str) -> None:
    """Wait until the test opens the gate."""
    with closing(_ledger()) as redis:
        if redis.blmove(f"gate:{name}", f"gate:{name}", GATE_TIMEOUT_S) is None:
            message = f"nobody opened the gate {name}"
            raise TimeoutError(message)


@contextmanager
def recorded() -> Iterator[list[Any]]:
    """Write down that a body begins, and how it ends: the result that the block leaves in the list, or what it raises."""
    _effect("begin")
    results: list[Any] = []
    try:
        yield results
    except BaseException as error:
        _effect("raise", type(error).__name__)
        raise
    _effect("end", *results)


def _effect(what: str, result: Any = None) -> None:
    entry = {"step_id": _identity(), "task_id": current_task.request.id, "pid": os.getpid(), "what": what}
    _kept_ledger(os.getpid()).rpush("effects", json.dumps({**entry, "result": result}, default=repr))
