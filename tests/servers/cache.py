"""Where test servers keep what outlives a run: a folder of this user's, which the system user of PostgreSQL can enter."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The folder, made where there is none; nothing in it is missed when it is deleted while no test runs.

    Raises:
        PermissionError: Somebody else has made it.
    """
    folder = Path(tempfile.gettempdir()) / f"interlock-tests-{os.geteuid()}"
    folder.mkdir(exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        message = f"{folder} belongs to somebody else"
        raise PermissionError(message)
    folder.chmod(0o755)  # whatever the umask
    return folder
