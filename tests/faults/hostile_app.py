"""The fault suite's app in a process whose own code misbehaves around Interlock: listeners that raise, a pool that is empty.

The environment says what a worker's children are to suffer.
"""

from __future__ import annotations

import os
import threading
from typing import Any, NoReturn

from celery import signals

from interlock.signals.runtime import runtime_of
from tests.faults.steps_app import app
from tests.worker.bodies import mark, pass_gate

__all__ = ["app"]

_CONNECTIONS = 15  # of SQLAlchemy's default pool, overflow included


@signals.worker_process_init.connect(weak=False)
def _listen(**_: Any) -> None:
    if "TEST_BAD_LISTENERS" not in os.environ:
        return
    database = runtime_of(app).database
    for event in ("state_changing", "state_changed"):
        database.emitter.on(event, _raise)
        database.emitter.on(event, lambda data, event=event: mark(f"{event} {data['to_state']}", data["workflow_id"]))
    database.after_commit.insert(0, _raise)


def _raise(_: Any) -> NoReturn:
    message = "a listener of the user's"
    raise LookupError(message)


@signals.task_success.connect(weak=False)
def _exhaust(**_: Any) -> None:
    """Before Interlock reports: take every connection of its pool, and give them back when the gate is opened."""
    name = os.environ.pop("TEST_EXHAUST", None)
    if name is None:
        return
    database = runtime_of(app).database
    database._connections.close()  # what it keeps for itself is in the pool again
    database.engine.pool._timeout = 0.2  # type: ignore[attr-defined] # not half a minute for each try
    taken = [database.engine.connect() for _ in range(_CONNECTIONS)]
    mark("exhausted", name)

    def give_back() -> None:
        pass_gate(name)
        for connection in taken:
            connection.close()

    threading.Thread(target=give_back, daemon=True).start()
