"""The app under chaos: bodies that do sums, take their time, and note what they do where no fault reaches.

Whoever starts a worker gives the addresses, and the ledger's path, in the environment.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import Celery

from interlock import current_step, install
from tests.chaos.ledger import Entry, append, read

LEDGER = "CHAOS_LEDGER"

app = Celery("chaos", broker=os.environ.get("INTERLOCK_BROKER_URL"))
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=True,
    broker_connection_retry_on_startup=True,
)
install(app)


class NotYet(Exception):
    """A body that fails on purpose."""


def _note() -> partial[None]:
    """Notes of this run of the body; the first one says that it began."""
    step = current_step()
    if step is None:
        message = "this task only runs as a step"
        raise RuntimeError(message)
    body = {"pid": os.getpid(), "began_at": time.time()}
    entry = partial(Entry, step.idempotency_key, step.run_id, step.attempt, uuid4().hex, **body)
    note = partial(_append, entry)
    note("begin")
    return note


def _append(entry: partial[Entry], what: Any, value: int = 0) -> str:
    made = entry(what, value)
    append(os.environ[LEDGER], made)
    return made.body


def _work(note: partial[None], numbers: list[int], seconds: float) -> dict[str, Any]:
    """Half the time before the effect and half of it after, so that a kill can come at either side of it."""
    time.sleep(seconds / 2)
    value = sum(numbers)
    body = note("effect", value)
    time.sleep(seconds / 2)
    return {"value": value, "body": body}


@app.task
def add(numbers: list[int], seconds: float) -> dict[str, Any]:
    """The sum, after a while."""
    return _work(_note(), numbers, seconds)


@app.task
def spread(numbers: list[int], count: int, seconds: float) -> dict[str, Any]:
    """A list to map over: the sum, the sum and one, and so on."""
    done = _work(_note(), numbers, seconds)
    return {**done, "items": [done["value"] + number for number in range(count)]}


def _refuse_at_first(note: partial[None], refusals: int) -> None:
    step = current_step()
    earlier = read(Path(os.environ[LEDGER]))[step.idempotency_key] if step else []
    if sum(entry.what == "refused" for entry in earlier) < refusals:
        note("refused")
        message = f"the first {refusals} times this fails"
        raise NotYet(message)


@app.task
def reluctant(numbers: list[int], refusals: int, seconds: float) -> dict[str, Any]:
    """Fail a few times; the step's policy tries again."""
    note = _note()
    _refuse_at_first(note, refusals)
    return _work(note, numbers, seconds)


@app.task(autoretry_for=(NotYet,), max_retries=1000, default_retry_delay=0)
def persistent(numbers: list[int], refusals: int, seconds: float) -> dict[str, Any]:
    """Fail a few times; Celery's own retries try again."""
    note = _note()
    _refuse_at_first(note, refusals)
    return _work(note, numbers, seconds)
