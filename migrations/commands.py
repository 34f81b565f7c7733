"""The verbs: upgrade, downgrade, current, check. Each opens the database at a URL and leaves nothing open."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from interlock.core.database.revision import EXPECTED_REVISION, current_revision, is_newer, require_revision
from interlock.core.errors import ConfigurationError

from .comparison import TablesDiffer, find_differences
from .transaction import opened

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["check", "current", "downgrade", "upgrade"]

logger = logging.getLogger("interlock.migrations")

# Alembic keeps the context of a run in module globals, one for all threads.
_one_run = Lock()


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the tables to `revision`, in one transaction, one process at a time.

    A database that a later version has migrated is left as it is, with a warning: a process of the release before may
    start in the middle of a rolling upgrade.

    Args:
        url: As for `open_database`.
        revision: Four digits, or `head`.

    Raises:
        ConfigurationError: The URL is not supported, or there is no such revision.
    """
    found = current(url)
    if found == EXPECTED_REVISION and revision == "head":
        return  # without the lock: every start of an embedded database comes here
    if found is not None and is_newer(found):
        logger.warning("not upgraded: the database is at %s, newer than %s of this version", found, EXPECTED_REVISION)
        return
    _run(command.upgrade, url, revision)


def downgrade(url: str, revision: str) -> None:
    """Take migrations back down to `revision`, in one transaction. What their tables and columns held is lost.

    Args:
        url: As for `open_database`.
        revision: Four digits, a step such as `-1`, or `base` for no tables at all.

    Raises:
        ConfigurationError: The URL is not supported, or there is no such revision below the database's.
    """
    _run(command.downgrade, url, revision)


def current(url: str) -> str | None:
    """The revision that the database is at, None when it was never migrated.

    Raises:
        ConfigurationError: The URL is not supported.
    """
    with opened(url) as database:
        return current_revision(database)


def check(url: str) -> None:
    """Make sure that the tables are those of this version: the revision, and what is really there.

    A database newer than this version is accepted with a warning, and not compared.

    Raises:
        NotMigrated: It was never migrated, or is behind.
        TablesDiffer: The revision is right, and somebody has changed the tables by other means.
        ConfigurationError: The URL is not supported.
    """
    with opened(url) as database:
        if require_revision(database) != EXPECTED_REVISION:
            return
        with _one_run, database.reading() as connection:
            differences = find_differences(connection)
    if differences:
        raise TablesDiffer(differences)


def _run(verb: Callable[[Config, str], None], url: str, revision: str) -> None:
    try:
        with _one_run:
            verb(_config(url), revision)
    except CommandError as error:
        msg = f"cannot {verb.__name__} the database to {revision!r}: {error}"
        raise ConfigurationError(msg) from error


def _config(url: str) -> Config:
    config = Config(attributes={"database_url": url})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
