"""Asks the database: whether it can be used, how its server is set, what is to be done."""

from __future__ import annotations

import math
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import make_url

from interlock import migrations
from interlock.core.database.database import open_database
from interlock.core.database.revision import current_revision, is_newer
from interlock.core.errors import ConfigurationError
from interlock.core.queries.database_health import Work, read_server, read_work

from .facts import Away, DatabaseFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.database.database import Database

__all__ = ["ask_database"]

_MOUNTS: Final = Path("/proc/self/mountinfo")


def ask_database(url: str, timeout_s: float) -> tuple[DatabaseFacts | Away, Work | Away]:
    """Look at the database and, where its tables can be used, at the work in it. Makes no file where there is none.

    Raises:
        SQLAlchemyError: It does not answer.
        ConfigurationError: The URL is not supported.
    """
    file, is_relative = _sqlite_file(url)
    if file is not None and not file.is_file():
        missing = Away(f"there is no database file {file}: `interlock db upgrade` makes it")
        return missing, missing
    with _opened(url, timeout_s) as database:
        server = read_server(database)
        revision = current_revision(database)
        newer = revision if revision is not None and is_newer(revision) else None
        fault = _fault(url)
        work: Work | Away = read_work(database) if fault is None else Away("the database has not the tables")
    return (
        DatabaseFacts(
            server=server,
            revision_fault=fault,
            newer=newer,
            path=None if file is None else str(file),
            is_relative=is_relative,
            filesystem="" if file is None else filesystem_of(file),
        ),
        work,
    )


def filesystem_of(file: Path, mounts: Path = _MOUNTS) -> str:
    """Type of the file system that a file is on, by the longest mount point above it; empty where the system does not tell."""
    if not mounts.is_file():
        return ""
    best, kind = "", ""
    resolved = str(file.resolve())
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].encode().decode("unicode_escape")
        if len(point) >= len(best) and (resolved == point or resolved.startswith(point.rstrip("/") + "/")):
            best, kind = point, after.split(" ")[0]
    return kind


def _sqlite_file(url: str) -> tuple[Path | None, bool]:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None, False
    file = Path(str(parsed.database))
    return file.absolute(), not file.is_absolute()


@contextmanager
def _opened(url: str, timeout_s: float) -> Iterator[Database]:
    options: dict[str, Any] = {}
    if make_url(url).get_backend_name() != "sqlite":
        options["connect_args"] = {"connect_timeout": max(2, math.ceil(timeout_s))}  # libpq takes no less than 2
    database = open_database(url, **options)
    try:
        yield database
    finally:
        database.dispose()


def _fault(url: str) -> str | None:
    try:
        migrations.check(url)
    except ConfigurationError as error:  # not migrated, behind, or changed by other means
        return str(error)
    return None
