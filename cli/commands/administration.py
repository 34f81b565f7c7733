"""The commands about the tables: `db upgrade`, `db current`, `db check`."""

from __future__ import annotations

import click

from interlock import migrations
from interlock.cli.connection import database_url
from interlock.cli.options import Options, OptionsCommand
from interlock.cli.output.screen import Screen

__all__ = ["db"]


@click.group("db", context_settings={"help_option_names": ["-h", "--help"]})
def db() -> None:
    """Prepare the database and look after its tables."""


@db.command(
    "upgrade",
    cls=OptionsCommand,
    examples=(
        "interlock db upgrade --database-url postgresql://interlock@db/interlock",
        "interlock -A shop.application db upgrade",
    ),
)
@click.option("--revision", default="head", show_default=True, help="How far.")
def upgrade(options: Options, *, revision: str) -> None:
    """Bring the tables to the revision that this version needs. Safe to run from several places at once."""
    url = database_url(options)
    migrations.upgrade(url, revision)
    found = migrations.current(url)
    Screen.of(options).done({"revision": found}, f"the database is at revision {found}")


@db.command("current", cls=OptionsCommand, examples=("interlock db current --json",))
def current(options: Options) -> None:
    """Print the revision of the tables."""
    found = migrations.current(database_url(options))
    Screen.of(options).done({"revision": found}, found or "none: run `interlock db upgrade`")


@db.command("check", cls=OptionsCommand, examples=("interlock db check && celery -A shop.application worker",))
def check(options: Options) -> None:
    """Check that the tables are those that this version needs; the exit code is 1 if not."""
    migrations.check(database_url(options))
    Screen.of(options).done({"valid": True}, "the tables are those of this version")
