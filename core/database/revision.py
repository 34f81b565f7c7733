"""Which revision of the tables this version needs, and whether a database has it.

The migrations themselves are `interlock.migrations`, which core does not import; a test holds `EXPECTED_REVISION` to
their head. Revisions are four digits and rise by one, so that a newer one is recognised without being known.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from interlock.core.errors import NotMigrated

if TYPE_CHECKING:
    from .database import Database

__all__ = ["EXPECTED_REVISION", "VERSION_TABLE", "current_revision", "is_newer", "require_revision"]

EXPECTED_REVISION = "0003"

# Interlock lives in the producer's database, whose own migrations own the table that Alembic uses by default.
VERSION_TABLE = "interlock_version"

logger = logging.getLogger("interlock.database")

_READ_REVISION = text(f"SELECT version_num FROM {VERSION_TABLE}")  # noqa: S608 - a constant
_UNDEFINED_TABLE = "42P01"


def current_revision(database: Database) -> str | None:
    """The revision of the database, None when it was never migrated. One SELECT, in a transaction of its own."""
    try:
        with database.reading() as connection:
            return connection.execute(_READ_REVISION).scalar_one_or_none()
    except DBAPIError as error:
        if _is_missing_table(error):
            return None
        raise


def is_newer(revision: str) -> bool:
    """Whether `revision` was made by a later version of Interlock than this one."""
    return re.fullmatch(r"[0-9]{4}", revision) is not None and revision > EXPECTED_REVISION


def require_revision(database: Database) -> str:
    """The revision of a database whose tables this version can use; others are refused.

    A newer database is accepted, with a warning once: during a rolling upgrade the tables are migrated first, while
    workers of the release before still run. Each migration therefore leaves the tables usable by the release before it:
    columns are added nullable or with a default, and removed one release after the last one that uses them.

    Raises:
        NotMigrated: It was never migrated, or is behind.
    """
    current = current_revision(database)
    if current == EXPECTED_REVISION:
        return current
    if current is None or not is_newer(current):
        raise NotMigrated(current, EXPECTED_REVISION)
    _warn_newer(current)
    return current


@cache
def _warn_newer(current: str) -> None:
    logger.warning(
        "the database is at revision %s, newer than %s, which this version knows: upgrade this process soon",
        current,
        EXPECTED_REVISION,
    )


def _is_missing_table(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return state == _UNDEFINED_TABLE if state is not None else f"no such table: {VERSION_TABLE}" in str(error.orig)
