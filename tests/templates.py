"""Migrated databases to copy, made once for all test runs with the same code: migrating takes longer than most tests."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.processes import ROOT
from tests.servers.cache import cache_folder

__all__ = ["fingerprint", "sqlite_file", "upgrade"]

_KEPT_S: Final = 24 * 3600


def fingerprint() -> str:
    """Tells one set of tables from another: by the code that makes them, and all that it could call."""
    code = hashlib.sha256()
    for path in sorted(path for folder in ("migrations", "core") for path in (ROOT / folder).rglob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()[:16]


def upgrade(url: str) -> None:
    """Make the tables in an empty database."""
    from interlock.migrations import upgrade as migrate  # noqa: PLC0415 - a run that finds its templates loads no Alembic

    migrate(url)


def sqlite_file() -> Path:
    """A SQLite file with all tables and no rows; not to be opened, but copied."""
    folder = cache_folder() / "sqlite"
    folder.mkdir(exist_ok=True)
    path = folder / f"{fingerprint()}.db"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as making:
            made, copy = Path(making) / "made.db", Path(making) / "copy.db"
            upgrade(f"sqlite:///{made}")
            with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)  # unlike a copy of the file, it includes what may still be in the WAL
            copy.rename(path)
        for old in folder.glob("*.db"):
            if time.time() - old.stat().st_mtime > _KEPT_S:
                old.unlink(missing_ok=True)
    os.utime(path)
    return path
