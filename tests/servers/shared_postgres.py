"""One PostgreSQL server for all test runs of this checkout: found, or started, and left running.

Three files in its folder say by their locks, which end with the processes that hold them, what is going on:

- `keeper`: held by the process that runs the server (`keeper`), which wrote its process id and the port into it.
- `users`: shared by the test processes that use the server; its time is that of the last one who came or left.
- `lock`: held for the moment in which somebody looks for the server, starts it, stops it or makes a template.

Each test process makes databases of its own in it and drops them. What a killed one has left is dropped by the next that
finds nobody else there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from tests.processes import ROOT, STARTUP_TIMEOUT_S, tail, wait_until
from tests.unit_tests import refuse_in_unit_tests

from .cache import cache_folder
from .postgres import PACKAGE, PostgresDatabases, url_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SharedPostgres", "server_folders"]

IDLE_S = 3600.0
_TEMPLATE = "template_of_"
_TEMPLATES_KEPT = 2


def _checkout() -> str:
    return hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:12]


def server_folders() -> list[Path]:
    """The folders of all servers that test runs of this checkout have started."""
    return sorted(cache_folder().glob(f"postgres-{_checkout()}-*"))


def _folder() -> Path:
    """The folder of the server that this code would start: other code, or other binaries, find it no more."""
    code = hashlib.sha256(version(PACKAGE).encode())
    for path in sorted(Path(__file__).parent.glob("[!t_]*.py")):  # not the tests
        code.update(path.read_bytes())
    return cache_folder() / f"postgres-{_checkout()}-{code.hexdigest()[:12]}"


class SharedPostgres:
    """The server, as one test process uses it: as a context it runs, and gives its databases.

    Args:
        folder: Where its files are; without it, this checkout's.
        idle_s: After how many seconds without a user it stops.
    """

    def __init__(self, folder: Path | None = None, *, idle_s: float = IDLE_S) -> None:
        self.folder = _folder() if folder is None else folder
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o755)  # PostgreSQL is another user where the tests run as root
        self._idle_s = idle_s
        self._users = self.folder / "users"
        self._stack = ExitStack()

    @property
    def keeper_pid(self) -> int | None:
        """The process that runs the server; None where it does not run."""
        found = self._state()
        return None if found is None else found["pid"]

    def _state(self) -> dict[str, int] | None:
        path = self.folder / "keeper"
        if not path.exists():
            return None
        with path.open("rb") as keeper:
            if try_lock(keeper, fcntl.LOCK_SH):
                return None  # whoever wrote it has ended
            wait_until(
                lambda: os.fstat(keeper.fileno()).st_size, STARTUP_TIMEOUT_S, f"the server in {self.folder} starts"
            )
            state: dict[str, int] = json.loads(keeper.read())
            return state

    @property
    def databases(self) -> PostgresDatabases:
        """Its databases.

        Raises:
            RuntimeError: It does not run.
        """
        state = self._state()
        if state is None:
            message = f"no server runs in {self.folder}:\n{tail(self.folder / 'keeper.log')}"
            raise RuntimeError(message)
        return PostgresDatabases(url_on(state["port"]))

    def __enter__(self) -> Self:
        """Find it or start it; it stays at least until the end of the block."""
        refuse_in_unit_tests("uses PostgreSQL")
        with ExitStack() as entering:
            with self._locked():
                users = entering.enter_context(self._users.open("ab"))
                alone = try_lock(users, fcntl.LOCK_EX)
                fcntl.flock(users, fcntl.LOCK_SH)  # waits for a keeper that stops for want of users
                os.utime(users.fileno())
                self._ensure_running()
                if alone:
                    self._forget_earlier_runs()
            entering.callback(os.utime, users.fileno())
            self._stack = entering.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave it to others, or to itself."""
        self._stack.close()

    def _ensure_running(self) -> None:
        if self._state() is not None:
            if self.databases.answer():
                return
            self._end_keeper()
        log = self.folder / "keeper.log"
        with log.open("wb") as output:
            started = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "tests.servers.keeper",
                    self.folder,
                    str(self._idle_s),
                ],  # returns when it answers
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
            )
        if started.returncode != 0:
            message = f"PostgreSQL does not start:\n{tail(log)}"
            raise RuntimeError(message)

    def _forget_earlier_runs(self) -> None:
        names = self.databases.names()  # the newest first
        templates = [name for name in names if name.startswith(_TEMPLATE)]
        for name in {*names} - {*templates[:_TEMPLATES_KEPT]}:
            self.databases.drop(name)

    def template(self, fingerprint: str, make: Callable[[str], None]) -> str:
        """The name of a database that `make` has filled once, for as long as `fingerprint` is the same.

        Args:
            fingerprint: Tells one content from another; letters, digits.
            make: Gets the URL of an empty database.
        """
        name = _TEMPLATE + fingerprint
        with self._locked():
            databases = self.databases
            if name not in databases.names():
                making = f"making_{name}"
                databases.drop(making)
                make(databases.create(making))
                databases.rename(making, name)
        return name

    def stop(self) -> bool:
        """Stop it, also under its users; tells whether it ran."""
        with self._locked():
            if self._state() is None:
                return False
            self._end_keeper()
            return True

    def _end_keeper(self) -> None:
        if (pid := self.keeper_pid) is not None:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: self._state() is None, STARTUP_TIMEOUT_S, f"the server of {self.folder} ends")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def try_lock(file: IO[bytes], mode: int) -> bool:
    """Lock an open file unless somebody else holds it."""
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
