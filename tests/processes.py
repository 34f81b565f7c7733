"""Processes under test: starting them bound to the test run, and waiting for what they do."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parent.parent
STARTUP_TIMEOUT_S = 60.0

_BOUND_EXEC = Path(__file__).with_name("bound_exec.py")
_POLL_S = 0.02
# Below every system's range for outgoing connections: no client can take a stopped server's port.
_PORTS = range(20_000, 32_000)


def wait_until(predicate: Callable[[], object], timeout_s: float, what: str) -> None:
    """Poll `predicate` until it is true: the one place in the tests that sleeps.

    Raises:
        TimeoutError: `what` did not happen within `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            message = f"not within {timeout_s:g} s: {what}"
            raise TimeoutError(message)
        time.sleep(_POLL_S)


def free_port() -> int:
    """Return a TCP port on which nothing listens on 127.0.0.1 at this moment."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def tail(path: Path, lines: int = 40) -> str:
    """Return the last `lines` of a log file; empty where there is none."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def bound(command: Sequence[str | Path], parent_gone: signal.Signals, user: str | None = None) -> list[str | Path]:
    """The command line of a command that the system ends with `parent_gone` when this test process ends, however it ends."""
    # The binding is to a thread: what a test starts in a passing one must outlive it.
    passing = threading.current_thread() is not threading.main_thread()
    return [sys.executable, "-I", _BOUND_EXEC, "0" if passing else str(parent_gone.value), user or "", *command]


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path,
    parent_gone: signal.Signals,
    user: str | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command, its output appended to `log`, bound to the life of this test process."""
    with log.open("ab") as output:
        return subprocess.Popen(
            bound(command, parent_gone, user),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,  # Ctrl-C reaches the tests, which then stop it in order
        )
