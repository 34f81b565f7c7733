"""A server process in the foreground, with a folder and a port that survive restarts."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.processes import STARTUP_TIMEOUT_S, free_port, spawn, tail, wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

__all__ = ["Server", "package_folder"]


def package_folder(name: str) -> Path:
    """Where an installed package lies, found without importing it: those with servers in them act on import."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        message = f"the package {name} is missing: run `make install`"
        raise ModuleNotFoundError(message)
    return Path(spec.origin).parent


class Server(ABC):
    """A server process in the foreground, with a folder and a port that survive restarts.

    Args:
        name: What it is called in messages, and its folder.
        parent: Where its folder is made; without it, where temporary files go.

    Attributes:
        port: TCP port on 127.0.0.1.
        folder: private folder, removed by `close`.
        log: what the process printed, over all restarts.
    """

    def __init__(self, name: str, parent: Path | None = None) -> None:
        self.name = name
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"interlock-{name}-", dir=parent))
        self.log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """Return the command line that runs the server in the foreground."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether the server answers a client."""

    @property
    def user(self) -> str | None:
        """The system user to run as; None for the one that runs the tests."""
        return None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            RuntimeError: it is not running.
        """
        if self._process is None or not self.running:
            message = f"{self.name} is not running"
            raise RuntimeError(message)
        return self._process.pid

    def start(self) -> Self:
        """Start and wait until a client is answered; nothing to do where it runs already.

        Raises:
            RuntimeError: it ended while starting; the message has the end of its log.
            TimeoutError: it did not answer in time.
        """
        if self.running:
            return self
        self._process = spawn(
            self._command(),
            log=self.log,
            cwd=self.folder,
            parent_gone=signal.SIGINT,
            user=self.user,
        )
        wait_until(self._ready_or_dead, STARTUP_TIMEOUT_S, f"{self.name} answers")
        return self

    def _ready_or_dead(self) -> bool:
        if not self.running:
            message = f"{self.name} ended while starting:\n{tail(self.log)}"
            raise RuntimeError(message)
        return self._answers()

    def stop(self) -> None:
        """Stop in order and wait for the end; twice is as good as once."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL and wait for the end: a crash."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop in order and start again on the same port."""
        self.stop()
        self.start()

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(signum)
            self._process.wait(STARTUP_TIMEOUT_S)

    def close(self) -> None:
        """Stop and remove the folder."""
        try:
            self.stop()
        finally:
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Start it; where that fails, nothing stays behind."""
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc_info: object) -> None:
        """Stop it and remove its folder."""
        self.close()
