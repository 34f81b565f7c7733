"""Alembic's environment: run by `commands` with a URL in the attributes, and by the `alembic` command line.

The command line takes the URL from `-x url=…`, else from `INTERLOCK_DATABASE_URL`; `--sql` prints the statements
instead. Logging is left to whoever runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic import context
from sqlalchemy import text

from interlock.core.database.database import open_database
from interlock.core.database.revision import VERSION_TABLE
from interlock.core.errors import ConfigurationError
from interlock.core.settings import Settings
from interlock.migrations.comparison import COMPARED
from interlock.migrations.transaction import migrating

if TYPE_CHECKING:
    from sqlalchemy import Connection

OPTIONS: dict[str, Any] = {**COMPARED, "render_as_batch": True}  # SQLite cannot alter a column in place


def _url() -> str:
    url = context.config.attributes.get("database_url")
    if url is None:
        url = context.get_x_argument(as_dictionary=True).get("url") or Settings.load().database_url
    if url is None:
        msg = "no database: give `-x url=…`, or set INTERLOCK_DATABASE_URL"
        raise ConfigurationError(msg)
    return str(url)


def _run(connection: Connection) -> None:
    context.configure(connection=connection, **OPTIONS)
    context.run_migrations()
    _forget_base(connection)


def _forget_base(connection: Connection) -> None:
    """Drop the version table when nothing is left that has a version."""
    if not context.get_context().get_current_heads():
        connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))


def _print() -> None:
    dialect = open_database(_url()).dialect  # which connects to nothing
    context.configure(dialect_name=dialect, literal_binds=True, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _print()
else:
    migrating(_url(), _run)
