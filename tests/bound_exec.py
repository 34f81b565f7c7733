"""Become another command, one that the system ends when its parent is gone.

`python bound_exec.py SIGNUM USER COMMAND…`: after this, the process *is* the command, with the same
pid. On Linux it gets the signal when the thread that started it ends, so that a test run that is
killed leaves no server behind; 0 asks for none. USER is a system user to become, or empty.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import sys

_PR_SET_PDEATHSIG = 1


def become_user(name: str) -> None:
    """Give up root for the named user."""
    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def main() -> None:
    """Run what the arguments say."""
    signum, user, *command = sys.argv[1:]
    if user:
        become_user(user)
    if sys.platform == "linux":  # after the change of user, which clears it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signum))
    os.execv(command[0], command)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
