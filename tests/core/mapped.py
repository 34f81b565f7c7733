"""Plans with a step over a list, and how many of its items were in work at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .asking import enqueue
from .rows import step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from interlock.core import WorkflowController

    from .worker_double import WorkerDouble

ITEM = [{"$expr": "item"}]


def mapped(key: str = "m", over: str = "results.l", **options: Any) -> dict[str, Any]:
    """A step over the result of `l`, in at most `max_parallel` at once."""
    most = options.pop("max_parallel", None)
    return step(key, options.pop("after", "l"), map={"over": over, "max_parallel": most}, args=ITEM, **options)


def expanded(controller: WorkflowController, worker: WorkerDouble, items: object, **options: Any) -> str:
    """A run whose list step has given `items` to the mapped step m, for which j waits."""
    run_id = enqueue(controller, step("l"), mapped(**options), step("j", "m"))
    worker.run("l", items)
    return run_id


def most_at_once(history: Sequence[Row[Any]], prefix: str = "") -> int:
    """How many steps whose key begins so were running at once."""
    running: set[str] = set()
    most = 0
    for row in history:
        if row.step_key is not None and row.step_key.startswith(prefix):
            (running.add if row.to_state == "running" else running.discard)(row.step_key)
            most = max(most, len(running))
    return most
