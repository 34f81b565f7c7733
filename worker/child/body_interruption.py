"""Handles the soft signal in a pool's child: raises in the body that the signal is meant for, and nowhere else.

SIGUSR1 can arrive too late: the process may be idle (which Celery's handler would not survive), be claiming or reporting (which
would be torn in half), or already run another task. So MAIN, the only sender, first writes a note that names the attempt
(`interrupt_notes`), and the handler raises only if that attempt's body is on the stack at this moment. A signal without a note is
Celery's own (a soft time limit, a foreign revoke) and is passed on to its handler while a task runs.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from celery import _state as celery_state
from celery.exceptions import SoftTimeLimitExceeded

from interlock.signals.step_header import read_header
from interlock.signals.steps.held_attempt import StepInterrupted
from interlock.worker.interrupt_notes import SOFT_SIGNAL, InterruptNotes

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from celery import Task

    from interlock.signals.steps.held_attempt import HeldAttempt

__all__ = ["BodyInterrupter"]


class BodyInterrupter:
    """In a process that runs steps: knows whose body is on the stack, and handles the soft signal."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._previous: Callable[[int, FrameType | None], Any] | int | None = None
        self._notes: InterruptNotes | None = None
        self._held: HeldAttempt | None = None
        self._body: CodeType | None = None

    def install(self) -> None:
        """Replace billiard's handler, once per process and only in a pool's child.

        Called when the first task comes: billiard installs its own after `worker_process_init`.
        """
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._notes = InterruptNotes.inherited()
        in_child = _in_pool_process() and threading.current_thread() is threading.main_thread()
        if self._notes is not None and in_child:
            self._previous = signal.getsignal(SOFT_SIGNAL)
            signal.signal(SOFT_SIGNAL, self._on_signal)

    def enter(self, task: Task[..., Any], held: HeldAttempt) -> None:
        """From here on the attempt may be interrupted, while a frame of its body is on the stack."""
        self._body = _body_code(task)
        self._held = held

    def leave(self) -> None:
        """The attempt is over."""
        self._held = self._body = None

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        meant_for = self._notes.take(os.getpid()) if self._notes is not None else None
        held = self._held
        if held is None:
            # Its claim and its report are no part of a step's body, and must not be torn.
            if meant_for is None and _in_foreign_task() and callable(self._previous):
                self._previous(signum, frame)
            return
        if held.interrupted or held.soft_limited:
            return  # told once is enough: it may be cleaning up
        if not self._on_stack(frame) or meant_for not in (None, held.ref.task_id):
            return  # for a body that has ended meanwhile, or has not begun: that one is told again
        held.interrupted, held.soft_limited = meant_for is not None, meant_for is None
        stop = StepInterrupted() if held.interrupted else SoftTimeLimitExceeded()
        if not held.shielded:
            raise stop
        held.owed = stop

    def _on_stack(self, frame: FrameType | None) -> bool:
        while frame is not None:
            if frame.f_code is self._body:
                return True
            frame = frame.f_back
        return False


def _in_foreign_task() -> bool:
    task: Any = celery_state.get_current_task()
    return task is not None and read_header(task.request) is None


def _in_pool_process() -> bool:
    return bool(celery_state.task_join_will_block())  # type: ignore[attr-defined] # set by Celery's process initializer


def _body_code(task: Task[..., Any]) -> CodeType | None:
    for cls in type(task).__mro__:
        custom = vars(cls).get("__call__")
        if custom is not None and cls.__module__ != "celery.app.task":
            return getattr(custom, "__code__", None)
    return getattr(task.run, "__code__", None)
