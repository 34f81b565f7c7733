"""An app whose steps may be run through, with receivers of Celery's signals of its own, and a queue that a route names."""

from __future__ import annotations

import os
from contextlib import closing
from typing import Any

from celery import Celery, Task, signals
from celery.exceptions import SoftTimeLimitExceeded
from redis import Redis

from interlock import current_step, install
from tests.worker.bodies import note, pass_gate

app = Celery(
    "tests_run_through", broker=os.environ.get("INTERLOCK_BROKER_URL"), backend=os.environ.get("TEST_RESULTS_URL")
)
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=True,
    broker_connection_retry_on_startup=True,
    task_routes={"tests.worker.run_through_app.elsewhere": {"queue": "elsewhere"}},
    worker_soft_shutdown_timeout=0,
)
install(app)


def _hear(what: str, task: Any) -> None:
    with closing(Redis.from_url(os.environ["TEST_LEDGER_URL"])) as redis:
        redis.rpush("signals", f"{what} {task.request.id}")


@signals.task_prerun.connect
def _prerun(task: Any, **_: Any) -> None:
    _hear("prerun", task)


@signals.task_success.connect
def _success(sender: Any, **_: Any) -> None:
    _hear("success", sender)


@signals.task_failure.connect
def _failure(sender: Any, **_: Any) -> None:
    _hear("failure", sender)


@signals.task_postrun.connect
def _postrun(task: Any, state: str, **_: Any) -> None:
    _hear(f"postrun:{state}", task)


@app.task
def echo(value: Any = None) -> Any:
    """Return what it gets."""
    note("echo")
    return value


@app.task(bind=True)
def shows(self: Task, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return what can be seen of the request, and of the step."""
    request: Any = self.request
    step = current_step()
    assert step is not None
    values = {name: value for name, value in vars(request).items() if not name.startswith("_")}
    return {
        "names": sorted(values),
        "kinds": {name: type(value).__name__ for name, value in sorted(values.items())},
        "headers": sorted(request.headers),
        "id": request.id,
        "root_id": request.root_id,
        "correlation_id": request.correlation_id,
        "args": [list(args), kwargs],
        "request_args": [list(request.args), request.kwargs],
        "step": [step.key, step.task_id, step.attempt, step.should_stop()],
        "queue": [request.delivery_info["exchange"], request.delivery_info["routing_key"]],
        "retries": request.retries,
        "ignore_result": request.ignore_result,
        "hostname": request.hostname,
    }


@app.task
def hold(gate: str, value: Any = None) -> Any:
    """Wait at the gate; clean up when told to stop."""
    try:
        note("begin")
        pass_gate(gate)
    except SoftTimeLimitExceeded as stop:
        note(f"stopped by {type(stop).__name__}")
        raise
    note("end")
    return value


@app.task
def hard_of_hearing(gate: str) -> None:
    """Swallow every exception, as too much code does."""
    begun = False
    while True:
        try:
            if not begun:
                begun = True
                note("begin")
            pass_gate(gate)
        except Exception:  # noqa: BLE001 - the point
            note("swallowed")
        else:
            return


@app.task
def fails_first(times: int) -> int:
    """Raise so many times, then return how often it was tried."""
    count = note("try")
    if count <= times:
        raise RuntimeError(count)
    return count


@app.task(bind=True, max_retries=2, default_retry_delay=0)
def grows(self: Task, number: int) -> int:
    """Ask for another try with other arguments."""
    note(f"number {number} retries {self.request.retries}")
    if number < 3:
        raise self.retry(args=(number + 1,))
    return number


@app.task
def returns_object() -> Any:
    """Return what no JSON can say."""
    return object()


@app.task(soft_time_limit=20)
def limited(value: Any = None) -> Any:
    """A task with a time limit of its own."""
    return value


@app.task(rate_limit="1000/s")
def rated(value: Any = None) -> Any:
    """A task of which MAIN lets only so many begin in a second."""
    return value


@app.task
def elsewhere(value: Any = None) -> Any:
    """A task that is routed to another queue."""
    return value


@app.task
def foreign(value: Any = None) -> Any:
    """A task that is sent as ever, and not as a step."""
    note("foreign")
    return value
