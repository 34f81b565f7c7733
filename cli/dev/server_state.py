"""The lock of a data folder, and the file with the addresses of its servers.

The system gives the lock up when its holder ends, even by SIGKILL, so a stale file is never believed. The file holds passwords,
so nobody else may read it.
"""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from interlock.cli.failures import ServerRunning

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DATABASE", "DataFolder", "ServerState", "database_url_in", "find_server"]

_LOCK: Final = "lock"
_STATE: Final = "server.json"
DATABASE: Final = "interlock.db"
"""Name of the database file in a data folder."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """A running embedded server.

    Attributes:
        pid: Process id of what runs it.
        app: Import path of the Celery app.
        database_url: URL of its database.
        broker_url: URL of its broker.
        redis_url: URL of the Redis that carries its events.
        started_at: When it was started, ISO 8601.
    """

    pid: int
    app: str
    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    started_at: str


class DataFolder:
    """A data folder that this process means to have for itself.

    Args:
        path: The folder; made, with its parents, where it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock_fd: int | None = None

    def acquire(self) -> None:
        """Take it.

        Raises:
            ServerRunning: Another process has it.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.path / ".gitignore").write_text("*\n", encoding="utf-8")
        descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            state = _read(self.path)
            raise ServerRunning(self.path, None if state is None else state.pid) from None
        self._lock_fd = descriptor
        (self.path / _STATE).unlink(missing_ok=True)  # of a server that was killed

    def publish(self, state: ServerState) -> None:
        """Tell other processes where the servers are, all at once."""
        draft = self.path / f"{_STATE}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(state), file, indent=2)
        draft.replace(self.path / _STATE)

    def release(self) -> None:
        """Give it up; again: a no-op."""
        if self._lock_fd is None:
            return
        (self.path / _STATE).unlink(missing_ok=True)
        os.close(self._lock_fd)
        self._lock_fd = None


def database_url_in(data_dir: Path) -> str:
    """URL of the database in a data folder, whether it is there or not."""
    return f"sqlite:///{data_dir.resolve() / DATABASE}"


def find_server(data_dir: Path) -> ServerState | None:
    """The server that runs on a data folder; None where none does, or it is not ready."""
    try:
        descriptor = os.open(data_dir / _LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(data_dir)
    else:
        return None  # nobody has it: what the file says is of a server that was killed
    finally:
        os.close(descriptor)


def _read(data_dir: Path) -> ServerState | None:
    try:
        return ServerState(**json.loads((data_dir / _STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
