"""Turns errors of a command into what people see: one line on stderr, an exit code, no traceback."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from interlock.core.errors import ConfigurationError, InterlockError, NotMigrated
from interlock.core.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = [
    "EXIT_REFUSED",
    "EXIT_USAGE",
    "AppNotFound",
    "Failure",
    "NoServer",
    "ServerFailed",
    "ServerRunning",
    "reported",
]

EXIT_REFUSED: Final = 1
"""The verb was refused, or the workflow did not complete."""
EXIT_USAGE: Final = 2
"""The command line, or the configuration, is wrong."""

_MISSING: Final = frozenset({"42P01", "42703"})  # PostgreSQL: undefined_table, undefined_column


class AppNotFound(ConfigurationError):
    """There is no Celery app under the name given.

    Attributes:
        name: What was named.
    """

    def __init__(self, name: str, detail: str) -> None:
        self.name = name
        super().__init__(f"-A {name}: {detail}")


class NoServer(ConfigurationError):
    """Nothing says which database or broker to talk to."""


class ServerFailed(InterlockError):
    """A part of an embedded server did not start, or ended by itself."""


class ServerRunning(InterlockError):
    """Another server has the data folder.

    Attributes:
        data_dir: The folder.
        pid: Process id of its server, where known.
    """

    def __init__(self, data_dir: Path, pid: int | None) -> None:
        self.data_dir, self.pid = data_dir, pid
        who = "a server" if pid is None else f"a server (pid {pid})"
        super().__init__(
            f"{who} is running on {data_dir}: `interlock list` and the other commands find it by themselves; "
            "stop it with Ctrl-C where it runs, or give --data another folder",
        )


class Failure(click.ClickException):
    """An error as the command line shows it: `Error: …` on stderr, or one JSON document there."""

    exit_code = EXIT_REFUSED

    def __init__(self, message: str, *, kind: str, retryable: bool, as_json: bool) -> None:
        super().__init__(redacted(message))
        self.kind, self.retryable, self.as_json = kind, retryable, as_json

    def show(self, file: Any = None) -> None:
        """Print it."""
        if self.as_json:
            error = {"error": self.kind, "message": self.message, "retryable": self.retryable}
            click.echo(json.dumps(error), file=file, err=file is None)
            return
        label = click.style("Error:", fg="red", bold=True)
        click.echo(f"{label} {self.message}", file=file, err=file is None)


class UsageFailure(Failure):
    """A failure that another command line, or configuration, would not have."""

    exit_code = EXIT_USAGE


@contextmanager
def reported(*, as_json: bool = False, debug: bool = False, answers: bool = False) -> Iterator[None]:
    """Turn the errors that can be expected inside the block into a `Failure`; with `debug` they keep their traceback.

    Args:
        as_json: Show it as JSON.
        debug: Show the traceback.
        answers: The exit code 1 is an answer of the block, so that every failure has 2.
    """
    try:
        yield
    except Exception as error:  # sorted below: what is not expected is raised again
        failure = None if debug else _failure(error, as_json=as_json, answers=answers)
        if failure is None:
            raise
        raise failure from error


def _failure(error: Exception, *, as_json: bool, answers: bool) -> Failure | None:
    shown = UsageFailure if answers else Failure
    if isinstance(error, InterlockError):
        if isinstance(error, ConfigurationError) and not isinstance(error, NotMigrated):
            shown = UsageFailure
        return shown(str(error), kind=type(error).__name__, retryable=error.retryable, as_json=as_json)
    message = _service_message(error)
    if message is None:
        return None
    return shown(message, kind=type(error).__name__, retryable=True, as_json=as_json)


def _service_message(error: Exception) -> str | None:
    """Words for a service that does not answer, or a file that cannot be read; None for what is a bug."""
    package = type(error).__module__.partition(".")[0]
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if package == "sqlalchemy":
        return _database_message(error)
    if package == "kombu":
        return f"the broker does not answer: {first_line}. Is it running, and is --broker-url right?"
    if package == "redis":
        return f"Redis does not answer: {first_line}. Is it running, and is --redis-url right?"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return None


def _database_message(error: Exception) -> str | None:
    original = getattr(error, "orig", None)
    if original is None:
        return None  # not the database's words: a mistake in a statement
    first_line = (str(original).strip() or type(original).__name__).splitlines()[0]
    is_behind = getattr(original, "sqlstate", None) in _MISSING or first_line.startswith(
        ("no such table", "no such column")
    )
    if is_behind:
        return f"the database has not the tables of this version ({first_line}): run `interlock db upgrade`"
    return f"the database refused: {first_line}. Is it running, and is --database-url right?"
