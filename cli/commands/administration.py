"""The commands about the installation: `db upgrade`, `db current`, `db check`, and `completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from interlock import migrations
from interlock.cli.connection import find_record, find_target
from interlock.cli.failures import NoServer
from interlock.cli.options import Options, Verb
from interlock.cli.output.screen import Screen

__all__ = ["completion", "completion_script", "database_url", "db"]


@click.group("db", context_settings={"help_option_names": ["-h", "--help"]})
def db() -> None:
    """Prepare the database and look after its tables."""


@db.command(
    "upgrade",
    cls=Verb,
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


@db.command("current", cls=Verb, examples=("interlock db current --json",))
def current(options: Options) -> None:
    """Print the revision of the tables."""
    found = migrations.current(database_url(options))
    Screen.of(options).done({"revision": found}, found or "none: run `interlock db upgrade`")


@db.command("check", cls=Verb, examples=("interlock db check && celery -A shop.application worker",))
def check(options: Options) -> None:
    """Check that the tables are those that this version needs; the exit code is 1 if not."""
    migrations.check(database_url(options))
    Screen.of(options).done({"valid": True}, "the tables are those of this version")


@click.command(
    "completion",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='bash: eval "$(interlock completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc; '
    "fish: interlock completion fish > ~/.config/fish/completions/interlock.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands and options."""
    click.echo(completion_script(ctx.find_root().command, shell))


def completion_script(command: click.Command, shell: str) -> str:
    """The completion script of `interlock` for `bash`, `zsh` or `fish`."""
    maker = get_completion_class(shell)
    if maker is None:
        raise click.BadParameter(shell)
    return maker(command, {}, "interlock", "_INTERLOCK_COMPLETE").source()


def database_url(options: Options) -> str:
    """The URL of the database that the options lead to.

    Raises:
        NoServer: They lead to none.
    """
    target = find_target(options) or find_record(options)
    url = None if target is None else target.database_url
    if url is None and target is not None and target.app is not None:
        url = target.app.conf.get("interlock_database_url")
    if url is None:
        message = "which database? Give --database-url, set INTERLOCK_DATABASE_URL, or name a configured app with -A"
        raise NoServer(message)
    return str(url)
