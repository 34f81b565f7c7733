"""MAIN's end of the pipe to its engine process: starts the process, and exchanges JSON lines with it.

MAIN writes what it holds and what it saw; the engine answers which bodies are to stop. MAIN never blocks on it: what an engine
that has stopped reading leaves unread is not added to, because the next heartbeat says it again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from interlock.core.fault_points import fault_point
from interlock.worker.engine_pipe import parse_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["EngineLink"]

logger = logging.getLogger("interlock.worker")

_MAX_UNSENT = 1_000_000


class EngineLink:
    """MAIN's end: starts the engine process and talks to it without ever waiting.

    Attributes:
        ready: The engine has said (`receive`) that it is at work.
    """

    def __init__(self, app_path: str, hostname: str, modules: Iterable[str] = ()) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "interlock.worker.engine", app_path, hostname, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path) or ""},
        )
        self.ready = False
        self._received = b""
        self._unsent = b""
        self._writing = threading.RLock()  # a shutdown's signal handler may come back to it
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)

    @property
    def pid(self) -> int:
        """The engine's process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """The engine's exit code, None while it runs."""
        return self._process.poll()

    def send(self, message: dict[str, Any]) -> None:
        """Write one message as far as the pipe takes it, `flush` the rest later; drop it where the engine does not read."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if len(self._unsent) + len(line) > _MAX_UNSENT:
            logger.debug("the engine does not read; a note to it was dropped")
            return
        with self._writing:
            self._unsent += line * fault_point("note.send", next(iter(message)))
            self.flush()

    def flush(self) -> None:
        """Write what is left of earlier messages: one that names thousands of bodies is longer than a pipe."""
        pipe = self._process.stdin
        if pipe is None:
            return
        with self._writing, contextlib.suppress(OSError, ValueError):  # full, broken, or closed
            while self._unsent:
                self._unsent = self._unsent[os.write(pipe.fileno(), self._unsent) :]

    def receive(self) -> Iterator[dict[str, Any]]:
        """Messages that have arrived; ends at once when there is none."""
        pipe = self._process.stdout
        if pipe is None:
            return
        with contextlib.suppress(BlockingIOError, OSError, ValueError):
            while chunk := os.read(pipe.fileno(), 65536):
                self._received += chunk
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            message = parse_message(line)
            if message is not None:
                self.ready = True
                yield message

    def close(self, timeout_s: float) -> None:
        """Close the pipe, which ends the engine, and wait for it; kill it where it does not end."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
