"""The app under test, as a user would write it: tasks of every kind, none of which knows that it is a step.

Bodies write to a ledger in Redis, keyed by the step's id, and wait at gates there instead of sleeping. Whoever starts a worker
gives the addresses in the environment.
"""

from __future__ import annotations

import gc
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from celery import Celery, Task, shared_task
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from pydantic import BaseModel

from interlock import install
from tests.worker.bodies import note, pass_gate

app = Celery("tests_worker", broker=os.environ.get("INTERLOCK_BROKER_URL"), backend=os.environ.get("TEST_RESULTS_URL"))
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=True,
    broker_connection_retry_on_startup=True,
    worker_soft_shutdown_timeout=float(os.environ.get("TEST_SOFT_SHUTDOWN_S", "0")),
)
install(app)


# --- bodies that wait and can be told to stop


@app.task
def add(a: int, b: int) -> int:
    note("add")
    return a + b


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def echo(value: Any = None) -> Any:
    note("echo")
    return value


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
def slow_cleanup(gate: str, cleanup_gate: str) -> None:
    """Need a while to clean up, and come to no harm when told to stop again meanwhile."""
    try:
        note("begin")
        pass_gate(gate)
    except SoftTimeLimitExceeded:
        note("cleaning")
        pass_gate(cleanup_gate)
        note("clean")
        raise


@app.task
def finish_anyway(gate: str, value: Any) -> Any:
    """Take the request to stop as a request to hurry."""
    try:
        note("begin")
        pass_gate(gate)
    except SoftTimeLimitExceeded:
        note("hurried")
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


# --- the kinds of task that people have


@shared_task(name="tests.shared")
def shared(a: int) -> int:
    note("shared")
    return a * 2


class Base(Task):
    """A team's own base class, with hooks and a call of its own."""

    abstract = True

    def before_start(self, *_: Any) -> None:
        note("before_start")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note("call")
        return super().__call__(*args, **kwargs)

    def on_success(self, *_: Any) -> None:
        note("on_success")


@app.task(base=Base)
def based(a: int) -> int:
    note("body")
    return a + 1


@app.task(base=Base)
def based_hold(gate: str) -> None:
    try:
        note("begin")
        pass_gate(gate)
    except SoftTimeLimitExceeded as stop:
        note(f"stopped by {type(stop).__name__}")
        raise


@app.task(autoretry_for=(ValueError,), max_retries=3, default_retry_delay=0)
def flaky(succeed_at: int) -> int:
    """Fail until the ledger is long enough."""
    count = note("try")
    if count < succeed_at:
        raise ValueError(count)
    return count


@app.task(bind=True, max_retries=2, default_retry_delay=0)
def grows(self: Task, number: int) -> int:
    """Ask for another try with other arguments."""
    note(f"number {number} retries {self.request.retries}")
    if number < 3:
        raise self.retry(args=(number + 1,))
    return number


@app.task(bind=True, max_retries=1, default_retry_delay=0)
def gives_up(self: Task) -> None:
    note("try")
    raise self.retry(exc=KeyError("always"))


@app.task(bind=True, max_retries=1, default_retry_delay=0)
def goes_on(self: Task, how: str) -> Any:
    """Ask for another try the first time, and go on all the same; or ask each time."""
    count = note("try")
    if count > 1 and how != "always":
        return count
    if how == "swallow":
        try:
            self.retry(args=("swallow",))
        except Exception:  # noqa: BLE001 - the point
            return "too early"
    self.retry(throw=False)
    if how == "raise":
        raise ValueError(how)
    if how == "ignore":
        raise Ignore
    return "too early"


class Order(BaseModel):
    """What comes in."""

    amount: int


class Invoice(BaseModel):
    """What goes out."""

    total: int


@app.task(pydantic=True)
def invoice(order: Order) -> Invoice:
    note("invoice")
    return Invoice(total=order.amount * 2)


class ByClass(Task):
    """The old way: a class, registered by hand."""

    name = "tests.by_class"

    def run(self, a: int) -> int:
        note("by_class")
        return a + 100


app.register_task(ByClass())


@app.task(ignore_result=True)
def ignores_result(a: int) -> int:
    note("ignores_result")
    return a


@app.task(acks_late=True)
def acks_late(a: int) -> int:
    note("acks_late")
    return a


# --- what a process holds


@app.task
def collect(*, automatically: bool) -> None:
    """Collect garbage; from now on by itself, or not."""
    gc.collect()
    (gc.enable if automatically else gc.disable)()


@app.task
def outlived(name: str) -> int:
    """How many objects of a class there are, garbage included that nobody has collected."""
    return sum(type(each).__qualname__ == name for each in gc.get_objects())


# --- what goes wrong


@app.task
def fail(message: str) -> None:
    note("fail")
    raise RuntimeError(message)


class Refusal(Exception):
    """A base that people name in `non_retryable`."""


class Declined(Refusal):
    """Cannot be pickled, and neither can its base be made of its arguments: Celery wraps it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")


@app.task(bind=True)
def declines(self: Task, *, asks: bool = False) -> None:
    note("declines")
    if asks and not self.request.retries:
        self.retry(exc=Declined(402, "no"), countdown=0)
    raise Declined(402, "no")


class Mute(Exception):
    """Cannot say what is wrong."""

    def __str__(self) -> str:
        raise TypeError


@app.task
def raises_mute() -> None:
    note("raises_mute")
    raise Mute


class HookRaises(Task):
    """A hook that raises behind a body."""

    abstract = True

    def on_failure(self, *_: Any) -> None:
        raise KeyError("hook")


@app.task(base=HookRaises)
def fails_under_a_hook() -> None:
    note("fails_under_a_hook")
    raise Declined(402, "no")


@app.task
def exits(how: str) -> None:
    """End in a way that no `except Exception` sees."""
    note("exits")
    kinds: dict[str, BaseException] = {
        "exit": SystemExit(2),
        "interrupt": KeyboardInterrupt(),
        "base": Abandoned("all"),
    }
    try:
        raise ValueError(how)  # noqa: TRY301 - as it happens in code that cleans up
    except ValueError:
        raise kinds[how]  # noqa: B904 - as above


class Abandoned(BaseException):
    """As `asyncio.CancelledError` is one."""


@app.task(bind=True, max_retries=1)
def asks_for_eta(self: Task, eta: Any) -> str:
    """Ask for another try at a time without a zone, a little ahead in UTC, or at what is given."""
    if note("asks") == 1:
        naive = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=0.2)
        self.retry(eta=naive if eta is None else eta)
    return "done"


class Opaque:
    """No JSON can say this."""

    def __reduce__(self) -> Self:
        raise TypeError


@app.task
def returns_object() -> Any:
    return {"deep": [Opaque()]}


@app.task
def returns_much(size: int) -> str:
    return "x" * size


@app.task
def ignores() -> None:
    note("ignores")
    raise Ignore


@app.task
def rejects() -> None:
    note("rejects")
    raise Reject("no", requeue=False)


@app.task(bind=True)
def replaces(self: Task) -> None:
    note("replaces")
    raise self.replace(echo.s("replaced"))


@app.task
def dies(times: int) -> int:
    """Kill its own process so many times."""
    count = note("dies")
    if count <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


@app.task(soft_time_limit=3)
def over_time(gate: str) -> None:
    note("begin")
    pass_gate(gate)


@app.task(time_limit=1)
def over_hard_limit(gate: str) -> None:
    note("begin")
    pass_gate(gate)
