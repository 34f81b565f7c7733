"""The app of the random plans: one task, whose body does what its fates say, and notes that it began and how it ended.

The ledger of a run and its reruns is one file, which no fault reaches. A fate is a word and how many seconds it takes:

- `return`: give a result. `stubborn`: likewise, and be deaf to every interruption. `nul`: give one with a NUL, which JSONB refuses.
- `raise`: fail. `hopeless`, `declined`: fail with what the policy does not retry; the second has a constructor of its own.
- `retry`: Celery's own `self.retry`. `ask`: ask a person, and be run again.
- `reject`, `ignore`: raise what a step must not. `exit`: `sys.exit`. `kill`: kill the own process; for prefork alone.
- `outlast`: go on for so long; the step's limit is shorter.
- What is hard to report: `mute`: fail with what has no text. `garbled`: with a text that has a NUL. `unaskable`: ask a question
  that has one. `naive`: `self.retry` at a time without a zone, as Celery allows it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from celery import Celery
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from interlock import current_step, install
from tests.chaos.ledger import Entry, append, read

from .plans import fate_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEDGER = "RANDOM_PLANS_LEDGER"

_SLICE_S = 0.05

app = Celery("random_plans", broker=os.environ.get("INTERLOCK_BROKER_URL"))
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=True,
    broker_connection_retry_on_startup=True,
)
install(app)


class Wrong(Exception):
    """A failure that may be tried again."""


class Hopeless(Exception):
    """A failure that the policy does not retry."""


class Declined(Exception):
    """Likewise, of the kind that cannot be pickled."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")


class Mute(Exception):
    """A failure that cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("it has no text")


class _Notes:
    """What one run of a body writes down."""

    def __init__(self, family: str, fates: list[str], given: Any) -> None:
        step = current_step()
        assert step is not None, "this task only runs as a step"
        self.step = step
        self._path = Path(os.environ[LEDGER]) / family
        entries = [entry for found in read(self._path).values() for entry in found]
        self.number = sum(entry.what == "begin" and entry.value["step"] == step.key for entry in entries)
        self.word, self.seconds = fate_of(fates, self.number)
        self.body = uuid4().hex
        self.note("begin", {"step": step.key, "number": self.number, "fate": self.word, "given": given})

    def note(self, what: str, value: Any = None) -> None:
        step = self.step
        entry = Entry(
            step.idempotency_key, step.run_id, step.attempt, self.body, what, value, pid=os.getpid(), at=time.time()
        )
        append(self._path, entry)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Write down what leaves the block; a result is written by `result`."""
        try:
            yield
        except BaseException as error:
            self.note("end", {"how": type(error).__name__})
            raise

    def result(self, **more: Any) -> dict[str, Any]:
        result = {"body": self.body, **more}
        self.note("end", {"how": "return", "result": result})
        return result


@app.task(bind=True, max_retries=None)
def body(
    self: Any,
    *,
    family: str,
    fates: list[str],
    value: int,
    given: Any,
    careful: bool = False,
    gives: list[Any] | None = None,
) -> Any:
    """Do what this run of the body is to do."""
    notes = _Notes(family, fates, given)
    with notes.ending():
        if careful:
            notes.note("found", notes.step.last_checkpoint)
            notes.step.checkpoint(notes.number)
            notes.note("saved", notes.number)
        _take(notes, careful=careful)
        _END.get(notes.word, lambda *_: None)(self, notes)
        more = {} if gives is None else {"items": gives}
        if notes.word == "nul":
            more["text"] = "before\0behind"
        return notes.result(value=value, **more)


def _take(notes: _Notes, *, careful: bool) -> None:
    """Take the time that the fate says; a careful body asks meanwhile whether to stop, and is quicker then."""
    until = time.monotonic() + notes.seconds
    while (left_s := until - time.monotonic()) > 0:
        try:
            time.sleep(min(left_s, _SLICE_S))
            if careful and notes.word != "outlast" and notes.step.should_stop():
                return
        except SoftTimeLimitExceeded:
            if notes.word != "stubborn":
                raise


def _kill(_task: Any, notes: _Notes) -> None:
    notes.note("kill")
    os.kill(os.getpid(), signal.SIGKILL)


def _raise(make: Callable[[], BaseException]) -> Callable[[Any, _Notes], None]:
    def act(_task: Any, _notes: _Notes) -> None:
        raise make()

    return act


_END: dict[str, Callable[[Any, _Notes], Any]] = {
    "raise": _raise(lambda: Wrong("this fails")),
    "hopeless": _raise(lambda: Hopeless("this fails for good")),
    "declined": _raise(lambda: Declined(402, "this fails for good")),
    "reject": _raise(lambda: Reject("this is not wanted")),
    "ignore": _raise(Ignore),
    "exit": lambda *_: sys.exit(2),
    "mute": _raise(Mute),
    "garbled": _raise(lambda: Wrong("before\0behind")),
    "retry": lambda task, _: task.retry(countdown=0.1),
    "naive": lambda task, _: task.retry(eta=datetime.now() + timedelta(seconds=0.1)),  # noqa: DTZ005 - the point
    "ask": lambda _, notes: notes.step.request_approval("go on?", name=f"question {notes.number}"),
    "unaskable": lambda _, notes: notes.step.request_approval("go\0on?", name=f"question {notes.number}"),
    "kill": _kill,
}
