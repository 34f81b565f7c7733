"""The app of the fault suite. Every body writes down that it began and how it ended, by attempt, before Interlock hears of it."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded

from interlock import current_step, install
from interlock.signals.dispatch import lost_messages as missing_messages
from tests.worker.bodies import note, pass_gate, recorded


class Recorded(Task):
    """The base of every task here."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body between two entries of the ledger."""
        with recorded() as results:
            results.append(super().__call__(*args, **kwargs))
        return results[0]


app = Celery(
    "tests_faults",
    broker=os.environ.get("INTERLOCK_BROKER_URL"),
    backend=os.environ.get("TEST_RESULTS_URL"),
    task_cls=Recorded,
)
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=True,
    broker_connection_retry_on_startup=True,
    worker_soft_shutdown_timeout=float(os.environ.get("TEST_SOFT_SHUTDOWN_S", "0")),
)
if "TEST_VISIBILITY_S" in os.environ:
    app.conf.broker_transport_options = {"visibility_timeout": float(os.environ["TEST_VISIBILITY_S"])}
if "TEST_WORKERS_S" in os.environ:
    missing_messages._WORKERS_S = float(os.environ["TEST_WORKERS_S"])
install(app)


@app.task
def echo(value: Any = None) -> Any:
    """Return what it gets."""
    return value


@app.task
def hold(gate: str, value: Any = None) -> Any:
    """Wait at the gate; clean up when told to stop."""
    note("begin")
    try:
        pass_gate(gate)
    except SoftTimeLimitExceeded as stop:
        note(f"stopped by {type(stop).__name__}")
        raise
    note("end")
    return value


@app.task
def hard_of_hearing(gate: str) -> None:
    """Swallow every exception, as too much code does."""
    note("begin")
    while True:
        try:
            pass_gate(gate)
        except Exception:  # noqa: BLE001 - the point
            note("swallowed")
        else:
            return


@app.task
def late(gates: list[str], how: str) -> str:
    """Wait at a gate for each try, deaf to everything; the first try raises or returns."""
    count = 1 + note("called") // 2  # two entries for each try
    note(f"try {count}")
    while True:
        try:
            pass_gate(gates[count - 1])
        except SoftTimeLimitExceeded:
            continue
        break
    if count == 1 and how == "raise":
        raise LookupError(how)
    return f"try {count}"


@app.task
def fail(message: str) -> None:
    """Raise."""
    raise RuntimeError(message)


@app.task
def fails_first(times: int) -> int:
    """Raise so many times, then return how often it was tried."""
    count = note("try")
    if count <= times:
        raise RuntimeError(count)
    return count


@app.task
def kills_itself() -> None:
    """Kill its own process, each time."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def segfaults() -> None:
    """Read address 0, as a faulty extension does."""
    ctypes.string_at(0)


@app.task
def returns_object() -> Any:
    """Return what no JSON can say."""
    return {"deep": [object()]}


@app.task
def returns_much(size: int) -> str:
    """Return that many characters."""
    return "x" * size


@app.task
def saves() -> None:
    """Store a checkpoint."""
    step = current_step()
    assert step is not None
    step.checkpoint({"far": 1})


@app.task
def counts() -> dict[str, Any]:
    """Do something with the step's idempotency key, and say how often that was done with it."""
    step = current_step()
    assert step is not None
    return {"key": step.idempotency_key, "times": note("done")}


@app.task(acks_late=True, reject_on_worker_lost=True)
def echo_requeued(value: Any = None) -> Any:
    """The same, and its message comes back where its process dies."""
    return value


@app.task(acks_late=True)
def echo_late(value: Any = None) -> Any:
    """Return what it gets; its message is acknowledged only then."""
    return value
