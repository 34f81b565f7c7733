"""`python -m tests.servers.keeper FOLDER IDLE_S`: run the shared PostgreSQL server until nobody has used it for a while.

The command ends when the server answers; a process of its own, in the background, then owns the server, ends it on SIGTERM,
and itself when the server has ended or its folder is gone. When that process is killed, the server ends with it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import IO, Final

from .postgres import PostgresServer
from .shared_postgres import try_lock

_LOOK_S: Final = 1.0


def main() -> None:
    """Part from the terminal and the caller, who waits for the first answer."""
    folder, idle_s = Path(sys.argv[1]), float(sys.argv[2])
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        sys.exit(0 if os.read(reading, 1) else 1)
    os.close(reading)
    keep(folder, idle_s, writing)


def keep(folder: Path, idle_s: float, ready: int) -> None:
    """Run the server; write a byte to `ready` when it answers."""
    asked_to_end = Event()
    signal.signal(signal.SIGTERM, lambda *_: asked_to_end.set())
    for left in folder.glob("interlock-postgres-*"):  # by a keeper that was killed
        shutil.rmtree(left, ignore_errors=True)
    with ExitStack() as stack:
        state = stack.enter_context((folder / "keeper").open("w+b"))
        fcntl.flock(state, fcntl.LOCK_EX)
        users = stack.enter_context((folder / "users").open("ab"))
        server = stack.enter_context(PostgresServer(parent=folder))
        state.write(json.dumps({"pid": os.getpid(), "port": server.port}).encode())
        state.flush()
        os.write(ready, b".")
        os.close(ready)
        while server.running and _is_named(state, folder) and not _is_unused(users, idle_s):
            if asked_to_end.wait(_LOOK_S):
                break


def _is_named(state: IO[bytes], folder: Path) -> bool:
    """Whether the file in the folder is still ours: a folder that was deleted has no way to stop the server."""
    try:
        return (folder / "keeper").stat().st_ino == os.fstat(state.fileno()).st_ino
    except FileNotFoundError:
        return False


def _is_unused(users: IO[bytes], idle_s: float) -> bool:
    """Whether nobody has used it for so long; then whoever comes now waits until it has ended."""
    if not try_lock(users, fcntl.LOCK_EX):
        return False
    if time.time() - os.fstat(users.fileno()).st_mtime > idle_s:
        return True
    fcntl.flock(users, fcntl.LOCK_UN)
    return False


if __name__ == "__main__":
    main()
