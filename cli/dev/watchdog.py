"""Runs one command and ends it when the process that asked for it is gone, even by SIGKILL.

`python -I watchdog.py GRACE_S SIGNUM COMMAND…`: standard input is a pipe that the asker holds open. When it closes, the command
gets SIGNUM, and `GRACE_S` seconds later SIGKILL with its whole process group. SIGTERM to the watchdog skips the wait. Executed
as a file and never imported: it must start in milliseconds, so it uses the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def run(command: list[str], stop_signal: int, grace_s: float) -> int:
    """Run `command` to its end and return its exit code, negative for a signal."""
    # A session of its own: Ctrl-C in the terminal reaches the asker, which then stops things in order.
    child = subprocess.Popen(  # noqa: S603 - the asker names the command
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_die_with_the_watchdog,  # noqa: PLW1509 - no thread runs yet
    )
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: _kill_group(child.pid))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_asker, args=(child.pid, stop_signal, grace_s, ended), daemon=True).start()
    # Not reaped yet: until the group is killed, its id must not be given to somebody else.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    ended.set()
    _kill_group(child.pid)
    return child.wait()


def _end_with_the_asker(pid: int, stop_signal: int, grace_s: float, ended: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    if ended.is_set():
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, stop_signal)
    if not ended.wait(grace_s):
        _kill_group(pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _die_with_the_watchdog() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(run(sys.argv[3:], int(sys.argv[2]), float(sys.argv[1])) % 256)
