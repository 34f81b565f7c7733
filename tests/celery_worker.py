"""A Celery worker as a test runs it: a real process, with its pool, its signals and its log."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import psutil

from .processes import ROOT, STARTUP_TIMEOUT_S, spawn, tail, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# A pool process of Celery 5.7 waits up to 30 s for MAIN to take its last results, which MAIN does not do while it waits for the
# process: a warm shutdown in the middle of many short tasks takes that long now and then, with Interlock and without.
WARM_SHUTDOWN_S = 60.0


class CeleryWorker:
    """`celery -A APP worker` as a subprocess, its output in a file.

    Args:
        app: what `-A` takes: a module, or `module:attribute`.
        log: the file that receives the output.
        concurrency: children of the pool.
        env: variables added to this process's environment.
        args: further arguments of `celery worker`, such as `("--pool", "threads")`.
        cwd: the folder to run in; it comes first on the worker's `sys.path`.
    """

    def __init__(
        self,
        app: str,
        *,
        log: Path,
        concurrency: int = 2,
        env: Mapping[str, str] | None = None,
        args: Iterable[str] = (),
        cwd: Path = ROOT,
    ) -> None:
        self.app = app
        self.log = log
        self.node = f"test-{random.SystemRandom().randrange(16**8):08x}@localhost"
        self._cwd = cwd
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._args = [f"--concurrency={concurrency}", f"--hostname={self.node}", *args]
        self._process: subprocess.Popen[bytes] | None = None
        self._earlier_output = 0

    @property
    def pid(self) -> int:
        """The process id of MAIN, also after its end."""
        return self._started.pid

    @property
    def running(self) -> bool:
        """Whether MAIN is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """MAIN's exit code; None while it runs."""
        return self._started.poll()

    @property
    def output(self) -> str:
        """All that was printed so far, over all starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            message = "the worker was never started"
            raise RuntimeError(message)
        return self._process

    def launch(self) -> Self:
        """Start the process without waiting for it to be ready."""
        self._earlier_output = len(self.output)
        command = [sys.executable, "-m", "celery", "-A", self.app, "worker", "--loglevel=INFO"]
        self._process = spawn(
            [*command, *self._args],
            log=self.log,
            cwd=self._cwd,
            parent_gone=signal.SIGTERM,
            env=self._env,
        )
        return self

    def start(self, timeout_s: float = STARTUP_TIMEOUT_S) -> Self:
        """Start and wait until it says that it is ready.

        Raises:
            RuntimeError: it ended before; the message has the end of its log.
            TimeoutError: it was not ready within `timeout_s`.
        """
        self.launch()
        try:
            wait_until(self._ready_or_dead, timeout_s, f"worker {self.app} is ready")
        except TimeoutError as error:
            error.add_note(tail(self.log))
            self.kill()
            raise
        return self

    def _ready_or_dead(self) -> bool:
        ready = f"{self.node} ready." in self.output[self._earlier_output :]
        if not ready and not self.running:
            message = f"worker {self.app} ended while starting:\n{tail(self.log)}"
            raise RuntimeError(message)
        return ready

    def child_pids(self) -> list[int]:
        """Return the ids of all processes under MAIN: the pool's and the engine's."""
        return [child.pid for child in self._children()]

    def _children(self) -> list[psutil.Process]:
        if not self.running:
            return []
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def terminate(self, timeout_s: float = WARM_SHUTDOWN_S) -> int:
        """Ask for a warm shutdown (SIGTERM), wait for it, and return the exit code.

        Raises:
            TimeoutError: it did not end in time; it and its children are killed then.
        """
        self.ask_to_end()
        return self.wait_for_end(timeout_s)

    def ask_to_end(self) -> None:
        """Ask for a warm shutdown, unless it has ended; once, since Celery takes a second time for haste."""
        if self.running:
            self._started.send_signal(signal.SIGTERM)

    def wait_for_end(self, timeout_s: float = WARM_SHUTDOWN_S) -> int:
        """Wait for the shutdown that was asked for; returns and raises as `terminate` does."""
        try:
            return self._started.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            log = tail(self.log)
            self.kill()
            message = f"no warm shutdown within {timeout_s:g} s:\n{log}"
            raise TimeoutError(message) from error

    def kill(self, *, children_too: bool = True) -> None:
        """SIGKILL MAIN, wait for its end, then SIGKILL the children that it left behind.

        Args:
            children_too: False leaves the orphans to end by themselves, watched by a test.
        """
        children = self._children()
        if self.running:
            self._started.kill()
            self._started.wait()
        if children_too:
            for child in children:
                with suppress(psutil.NoSuchProcess):  # it compares start times: a reused id is not ours
                    child.kill()
            psutil.wait_procs(children, timeout=STARTUP_TIMEOUT_S)

    def __enter__(self) -> Self:
        """Start it and wait until it is ready."""
        return self.start()

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        """Shut down warmly; after a failure, kill it and print the end of its log."""
        if exc_type is None:
            if self.running:
                self.terminate()
            return
        self.kill()
        sys.stderr.write(f"\n--- end of {self.log.name} ({self.app})\n{tail(self.log)}\n")
