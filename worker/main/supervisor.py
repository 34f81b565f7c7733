"""Keeps the engine process alive from MAIN, renews leases through it, and signals bodies.

It runs on MAIN's timer, so it neither waits for anything nor touches the database: children are forked from this process, and
its event loop serves the broker.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from celery.worker import state as worker_state

from interlock.core.settings import Settings
from interlock.signals.dispatch.interrupt_broadcast import read_interrupts
from interlock.signals.step_header import read_header
from interlock.worker.interrupt_notes import SOFT_SIGNAL, InterruptNotes
from interlock.worker.pool_mode import blocks_main, is_prefork

from .engine_link import EngineLink
from .held_requests import HeldRequests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery import Celery

    from interlock.core.events import Interrupt

__all__ = ["Supervisor", "import_path"]

logger = logging.getLogger("interlock.worker")

_POLL_S = 0.25
_START_POLL_S = 0.02
_RESTART_AFTER_S = 1.0
_MISCONFIGURED = 2  # the engine's exit code where it cannot work as things are: no tables, no database
_MENDED_AFTER_S = 5.0  # how long to wait for a person then, instead of filling the log
_ENGINE_STOP_S = 10.0
_ENGINE_START_S = 60.0  # at most; it imports the whole app, as this process has


class Supervisor:
    """MAIN's side of one worker.

    Attributes:
        held: The steps whose bodies its pool runs.
        pool_is_prefork: Whether bodies run in processes of their own, one at a time.
    """

    def __init__(self, worker: Any) -> None:
        self.app: Celery = worker.app
        self.settings = Settings.load(self.app.conf)
        self._worker = worker
        self._interrupt_notes = InterruptNotes.create()
        self._link: EngineLink | None = None
        self._restart_at = 0.0
        self._beat_at = 0.0
        self._told_at: dict[tuple[str, str], float] = {}
        self.held = HeldRequests()
        self._last_held: list[Any] = []
        self._stopping = False
        self.pid = os.getpid()
        self.pool_is_prefork = is_prefork(worker)
        self._pool_blocks = blocks_main(worker)

    # --- the engine process --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the engine, and look after it from MAIN's timer."""
        if not self.pool_is_prefork:
            logger.warning(
                "this pool cannot interrupt a body that runs: pause in mode interrupt waits for it (drain); use prefork",
            )
        self._start_engine()
        self._hear_of_cold_shutdown()
        self._worker.timer.call_repeatedly(_POLL_S, self.tick)

    def _hear_of_cold_shutdown(self) -> None:
        """Celery's soft and cold shutdowns begin with this call, in a signal handler, and MAIN does not tick during it."""
        wait = self._worker.wait_for_soft_shutdown

        def announced() -> None:
            self.stop()
            wait()

        self._worker.wait_for_soft_shutdown = announced

    def await_engine(self) -> None:
        """Wait until the engine can renew claims, so that no body outlives its lease because the app takes long to import."""
        deadline = time.monotonic() + _ENGINE_START_S
        link = self._link
        while link is not None and not link.ready and link.exit_code() is None and time.monotonic() < deadline:
            worker_state.maybe_shutdown()
            for message in link.receive():
                logger.debug("the engine says %s before the worker is ready", message)
            time.sleep(_START_POLL_S)

    def tick(self) -> None:
        """Restart a dead engine, renew the claims, and carry out what the engine asks for."""
        link = self._link
        now = time.monotonic()
        if link is None or link.exit_code() is not None:
            code = None if link is None else link.exit_code()
            wait_s = _MENDED_AFTER_S if code == _MISCONFIGURED else 0.0
            if now >= self._restart_at + wait_s and not self._stopping:
                if link is not None:
                    logger.warning("the engine process has ended (exit code %s); it is started again", code)
                    link.close(0)
                self._start_engine()
            return
        link.flush()
        for message in link.receive():
            for document in message.get("interrupts", ()):
                self.interrupt(read_interrupts(document))
        if now >= self._beat_at:
            self._beat_at = now + self.settings.heartbeat_s
            self._beat()

    def stop(self) -> None:
        """A shutdown begins: bodies may still finish, and the engine renews their claims until this process ends."""
        if self._stopping:
            return
        self._stopping = True
        self._interrupt_notes.close_down()
        self._last_held = self.held.now()
        self.leave_alone()

    def close(self) -> None:
        """Everything has ended; end the engine too."""
        self._stopping = True
        if self._link is not None:
            self._link.close(_ENGINE_STOP_S)
            self._link = None
        self._interrupt_notes.remove()

    def abandon(self) -> None:
        """A cold shutdown: bodies that ran when it began have been killed, or will be, unless they have reported."""
        for request in self._last_held:
            self.tell_end(request, "shutdown", "the worker was shut down")
        self.close()

    def tell_engine(self, message: dict[str, Any]) -> None:
        """Send the engine a message; it may be lost."""
        if self._link is not None:
            self._link.send(message)

    def tell_end(self, request: Any, cause: str, message: str) -> None:
        """Tell the engine that an attempt has ended whose child cannot tell it any more."""
        header = read_header(request)
        if header is not None:
            ended = {"run_id": header.run_id, "step_id": header.step_id, "task_id": request.id}
            self.tell_engine({"ended": {**ended, "cause": cause, "message": message}})

    def _start_engine(self) -> None:
        path = self.settings.app or import_path(self.app)
        if path is None:
            logger.error(
                "cannot find the app's import path for the engine process: set interlock_app = 'package.module:attribute'. "
                "Until then this worker runs steps, but takes no commands and recovers nothing",
            )
            self._restart_at = float("inf")
            return
        self._restart_at = time.monotonic() + _RESTART_AFTER_S
        # What `--include` named is known to this process alone.
        self._link = EngineLink(path, self._worker.hostname, self.app.conf.include)
        self._beat_at = 0.0

    # --- heartbeat -----------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        held = self.held.ids()
        for told in [known for known in self._told_at if known[0] not in held]:
            del self._told_at[told]
        if self._link is not None:
            self._link.send({"held": held, "last": self._stopping})

    def hold_through_body(self) -> None:
        """In a pool that runs bodies in MAIN itself nothing ticks meanwhile: the engine goes on alone until the next beat."""
        if self._pool_blocks:
            self.leave_alone()

    def leave_alone(self) -> None:
        """MAIN is about to wait for something: the engine renews what is held now by itself, until the next beat."""
        if self._link is not None:
            self._link.send({"held": self.held.ids(), "last": True})

    # --- signalling bodies -----------------------------------------------------------------------------------------------

    def interrupt(self, interrupts: Iterable[Interrupt]) -> None:
        """Signal the bodies of the attempts that this worker holds at this moment.

        Asked for again at each heartbeat as long as the body is there: a signal may come before the body begins. The child
        raises in a body once.
        """
        by_message: dict[str, list[Interrupt]] = {}
        for interrupt in interrupts:
            by_message.setdefault(interrupt.message_id, []).append(interrupt)
        for request in self.held.now():
            for interrupt in by_message.get(request.id, ()):
                self._interrupt_one(request, interrupt.task_id, interrupt.mode)

    def _grace_is_over(self, request: Any, task_id: str) -> bool:
        now = time.monotonic()
        return now - self._told_at.setdefault((request.id, task_id), now) >= self.settings.cancel_grace_s

    def _interrupt_one(self, request: Any, task_id: str, mode: str) -> None:
        # A process that was told to stop goes on to no other step, so what ends with it is this attempt.
        overdue = mode == "cancel" and self._grace_is_over(request, task_id)
        pid = request.worker_pid
        if not pid or not request.time_start or not self.pool_is_prefork:
            return
        if mode == "terminate" or overdue:
            logger.warning("ending the process of %s (%s)", task_id, "grace is over" if overdue else "asked for")
            request.terminate(self._worker.pool, signal="SIGKILL")
            # Celery calls this a revoke and no failure: nobody else would say that the attempt has ended.
            self.tell_end(request, "interrupted", "its process was ended")
        elif self._interrupt_notes.leave(pid, task_id):
            try:
                os.kill(pid, SOFT_SIGNAL)
            except ProcessLookupError:
                logger.debug("process %s of %s has ended", pid, task_id)


def import_path(app: Celery) -> str | None:
    """Find `module:attribute` of an app among the imported modules; its own module first."""
    modules = sorted(sys.modules.items(), key=lambda item: item[0] != app.main)
    for name, module in modules:
        # Celery itself keeps the app in private corners, which are empty in another process.
        if name == "__main__" or name.partition(".")[0] in ("celery", "kombu", "billiard"):
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is app and not attribute.startswith("_"):
                return f"{name}:{attribute}"
    return None
