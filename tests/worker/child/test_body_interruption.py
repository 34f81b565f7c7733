"""The soft signal in a process that runs steps: what it may hit, what it must not tear, and that it is raised once."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from interlock import StepInterrupted
from interlock.core.attempts.attempts import AttemptRef, Claim
from interlock.signals.steps.held_attempt import HeldAttempt
from interlock.worker.child.body_interruption import BodyInterrupter
from interlock.worker.interrupt_notes import SOFT_SIGNAL, InterruptNotes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HEADER = {"run_id": "r", "step_id": "s", "session_id": "default", "key": "a", "attempt": 1}
TASK_ID = "s.1"


class Passed(Exception):
    """Celery's handler was called."""


class Process:
    """This process as a pool's child: the handler in place, MAIN's notes in a folder, a task on Celery's stack."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.interrupter = BodyInterrupter()
        self.notes = InterruptNotes(folder)
        self.held = HeldAttempt(AttemptRef("r", "s", TASK_ID, "token"), Claim(granted=True))
        self._monkeypatch = monkeypatch
        self.interrupter._notes = self.notes
        self.interrupter._previous = _celery_s_handler

    def runs(self, header: dict[str, Any] | None) -> None:
        """Put a task on Celery's stack: a step's, or a foreign one."""
        task = SimpleNamespace(request=SimpleNamespace(interlock=header))
        self._monkeypatch.setattr("celery._state.get_current_task", lambda: task)

    def enter(self, body: Callable[[], Any]) -> Any:
        """Run a body, interruptible."""
        self.runs(HEADER)
        self.interrupter.enter(SimpleNamespace(run=body), self.held)  # type: ignore[arg-type] # all that is read of a task
        try:
            return body()
        finally:
            self.interrupter.leave()

    def signal(self, meant_for: str | None = TASK_ID) -> None:
        """Send the signal: with a note of ours, or, as others do, without."""
        if meant_for is not None:
            self.notes.leave(os.getpid(), meant_for)
        os.kill(os.getpid(), SOFT_SIGNAL)


def _celery_s_handler(*_: Any) -> None:
    raise Passed


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    """The process; afterwards the signal means what it did."""
    process = Process(tmp_path, monkeypatch)
    before = signal.signal(SOFT_SIGNAL, process.interrupter._on_signal)
    yield process
    signal.signal(SOFT_SIGNAL, before)


def test_ours_raises_in_the_body_that_it_is_meant_for(process: Process) -> None:
    with pytest.raises(StepInterrupted):
        process.enter(process.signal)
    assert process.held.interrupted


def test_ours_for_another_attempt_leaves_the_body_alone(process: Process) -> None:
    process.enter(lambda: process.signal("s.2"))
    assert not process.held.interrupted


def test_that_of_others_raises_in_the_body_and_is_remembered(process: Process) -> None:
    def body() -> None:
        process.signal(None)

    with pytest.raises(SoftTimeLimitExceeded) as stop:
        process.enter(body)
    assert not isinstance(stop.value, StepInterrupted)
    assert (process.held.soft_limited, process.held.interrupted) == (True, False)


@pytest.mark.parametrize("meant_for", [TASK_ID, None])
@pytest.mark.parametrize("again", [TASK_ID, None])
def test_a_body_that_cleans_up_is_not_interrupted_again(process: Process, meant_for: str, again: str) -> None:
    def body() -> str:
        try:
            process.signal(meant_for)
        except SoftTimeLimitExceeded:
            process.signal(again)
            return "clean"
        return "deaf"

    assert process.enter(body) == "clean"


@pytest.mark.parametrize(("meant_for", "stop"), [(TASK_ID, StepInterrupted), (None, SoftTimeLimitExceeded)])
def test_in_a_shield_it_is_raised_behind_it(process: Process, meant_for: str | None, stop: type[Exception]) -> None:
    done: list[str] = []

    def body() -> None:
        with process.held.shield():
            process.signal(meant_for)
            done.append("the block")
        done.append("what follows")

    with pytest.raises(stop):
        process.enter(body)
    assert done == ["the block"]


def test_what_fails_in_a_shield_fails_as_it_did_where_no_signal_came(process: Process) -> None:
    def body() -> None:
        with process.held.shield():
            raise KeyError

    with pytest.raises(KeyError):
        process.enter(body)


@pytest.mark.parametrize("meant_for", [TASK_ID, None])
def test_neither_claim_nor_report_of_a_step_is_torn(process: Process, meant_for: str | None) -> None:
    """Before its body and behind it, a step's task is on Celery's stack and no body on Python's."""
    process.runs(HEADER)
    process.signal(meant_for)


def test_that_of_others_reaches_a_task_that_is_no_step(process: Process) -> None:
    process.runs(None)
    with pytest.raises(Passed):
        process.signal(None)


def test_ours_never_reaches_a_task_that_is_no_step(process: Process) -> None:
    process.runs(None)
    process.signal()


def test_an_idle_process_survives_it(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celery._state.get_current_task", lambda: None)
    process.signal(None)
