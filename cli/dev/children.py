"""Starts processes that end with this one, and passes on what they print."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Child"]

_WATCHDOG: Final = Path(__file__).with_name("watchdog.py")
_TAIL_LINES: Final = 30
_KILL_MARGIN_S: Final = 5.0


class Child:
    """One process of an embedded server, under a watchdog: it ends when this process does, even by SIGKILL.

    Args:
        name: Prefix of its lines.
        command: What to run.
        log: File that its output is appended to.
        stop_signal: What asks it to end in order.
        grace_s: How long it may take for that.
        env: Its environment; this process's by default.
        on_line: Called with the name and each line, in a thread.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        stop_signal: signal.Signals,
        grace_s: float,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str, str], None] | None = None,
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-I", str(_WATCHDOG), str(grace_s), str(int(stop_signal)), *command]
        self._log, self._env, self._grace_s = log, env, grace_s
        self._on_line = on_line
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Start it; its output goes to the log and to `on_line` from now on."""
        self._process = subprocess.Popen(  # noqa: S603 - our own watchdog, without a shell
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._env,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(
            target=self._read, args=(self._process,), name=f"{self.name}-output", daemon=True
        )
        self._reader.start()

    @property
    def running(self) -> bool:
        """Whether it is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs or before it was started."""
        return None if self._process is None else self._process.poll()

    @property
    def tail(self) -> str:
        """The last lines that it printed."""
        if self._reader is not None and not self.running:
            self._reader.join(timeout=1)
        return "\n".join(self._tail)

    def stop(self) -> None:
        """Ask it to end, wait for that, and kill it when the grace is over; again: a no-op."""
        if self._process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(self._grace_s + _KILL_MARGIN_S)
        except subprocess.TimeoutExpired:  # the watchdog itself hangs
            self.kill()
        self._finish()

    def kill(self) -> None:
        """End it and its whole process group at once."""
        if self._process is None:
            return
        self._process.terminate()  # the watchdog answers by killing the group
        try:
            self._process.wait(_KILL_MARGIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._finish()

    def _finish(self) -> None:
        if self._reader is not None:
            self._reader.join(timeout=1)
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _read(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is None:
            return
        with self._log.open("a", encoding="utf-8") as log, process.stdout:
            for line in process.stdout:
                text = line.rstrip("\n")
                self._tail.append(text)
                log.write(line)
                log.flush()
                if self._on_line is not None:
                    self._on_line(self.name, text)
