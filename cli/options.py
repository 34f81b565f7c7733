"""The options of every command (app, addresses, session, actor, output) and the command class that brings it along.

An option may stand before or after the verb; after it wins. The same commands serve `interlock` and `celery workflow`,
where Celery has loaded the app already.
"""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

__all__ = ["Options", "OptionsCommand", "remember", "shared_options"]

_META: Final = "interlock.options"
_HEADING: Final = "Shared options (before or after the command)"
_ENVIRONMENT: Final = {
    "app": "INTERLOCK_APP",
    "database_url": "INTERLOCK_DATABASE_URL",
    "broker_url": "INTERLOCK_BROKER_URL",
    "redis_url": "INTERLOCK_REDIS_URL",
    "session": "INTERLOCK_SESSION",
    "actor": "INTERLOCK_ACTOR",
    "data": "INTERLOCK_DATA",
}


@dataclass(frozen=True, slots=True)
class Options:
    """The shared options, as given; None where not given.

    Attributes:
        app: Import path of the Celery app.
        database_url: SQLAlchemy URL.
        broker_url: URL of the broker.
        redis_url: URL of the Redis that carries events.
        session: Session whose runs are meant.
        actor: Who acts, for the history.
        data: Data folder of an embedded server.
        as_json: Print JSON.
        debug: Show tracebacks.
        application: The app itself, where Celery has loaded it.
    """

    app: str | None = None
    database_url: str | None = field(default=None, repr=False)
    broker_url: str | None = field(default=None, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    session: str | None = None
    actor: str | None = None
    data: str | None = None
    as_json: bool = False
    debug: bool = False
    application: Celery | None = None

    @property
    def session_id(self) -> str:
        """The session, `default` where none is named."""
        return self.session or "default"

    @property
    def actor_name(self) -> str:
        """Who acts: as given, or the login name at this host."""
        return self.actor or f"{getpass.getuser()}@{socket.gethostname()}"

    @property
    def data_dir(self) -> Path:
        """The data folder, `.interlock` where none is named."""
        return Path(self.data or ".interlock")

    def merged(self, given: dict[str, Any]) -> Options:
        """These options with what is given over them."""
        if given.get("app"):
            given = {**given, "application": None}
        return replace(self, **{name: value for name, value in given.items() if value or name == "application"})

    def with_environment(self) -> Options:
        """These options with the environment for what is not given."""
        found: dict[str, Any] = {name: os.environ.get(variable) for name, variable in _ENVIRONMENT.items()}
        return replace(self, **{name: value for name, value in found.items() if value and not getattr(self, name)})


def shared_options() -> list[click.Option]:
    """Fresh declarations of the shared options, for one command."""
    return [
        click.Option(["-A", "--app"], metavar="MODULE[:ATTRIBUTE]", help=f"The Celery app. {_env('app')}"),
        click.Option(["--database-url"], metavar="URL", help=f"sqlite:/// or postgresql:// {_env('database_url')}"),
        click.Option(["--broker-url"], metavar="URL", help=f"Celery's broker. {_env('broker_url')}"),
        click.Option(["--redis-url"], metavar="URL", help=f"Redis for live events. {_env('redis_url')}"),
        click.Option(
            ["--data"],
            metavar="DIR",
            help=f"Folder of `interlock dev`, whose server is used where no URL is given. Default: .interlock {_env('data')}",
        ),
        click.Option(["--session"], metavar="NAME", help=f"Whose workflows. Default: default {_env('session')}"),
        click.Option(["--actor"], metavar="NAME", help=f"Who acts, for the history. Default: you@host {_env('actor')}"),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for programs."),
        click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
    ]


def _env(name: str) -> str:
    return f"[env: {_ENVIRONMENT[name]}]"


def remember(ctx: click.Context, given: dict[str, Any]) -> None:
    """Keep what a group was told for its commands; `ctx.obj` stays Celery's own."""
    known: Options = ctx.meta.get(_META) or Options()
    ctx.meta[_META] = known.merged(_taken(given))


def _taken(params: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(Options)}
    return {name: params.pop(name) for name in list(params) if name in names}


class OptionsCommand(click.Command):
    """A command that also takes the shared options and calls its function with an `Options` first.

    Args:
        examples: Lines for the end of its help, each a command to type.
        answers: Its exit code 1 is an answer, so that 2 says that there is none.
    """

    def __init__(
        self,
        *args: Any,
        params: list[click.Parameter] | None = None,
        examples: tuple[str, ...] = (),
        answers: bool = False,
        **kwargs: Any,
    ) -> None:
        self.examples = examples
        self._answers = answers
        self._shared = shared_options()
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 100})
        kwargs["params"] = [*(params or ()), *self._shared]
        super().__init__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the function; errors that can be expected become one line and an exit code."""
        from .failures import reported

        remember(ctx, ctx.params)
        options: Options = ctx.meta[_META].with_environment()
        with reported(as_json=options.as_json, debug=options.debug, answers=self._answers):
            return self.call(ctx, options)

    def call(self, ctx: click.Context, options: Options) -> Any:
        """Call the function with the options and the command's own parameters."""
        return ctx.invoke(self.function, options, **ctx.params)

    @property
    def function(self) -> Callable[..., Any]:
        """What the command does."""
        if self.callback is None:
            raise TypeError(self.name)
        return self.callback

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options first, then the shared ones."""
        own = [param for param in self.get_params(ctx) if isinstance(param, click.Option) and param not in self._shared]
        for heading, params in (("Options", own), (_HEADING, self._shared)):
            records = [record for param in params if (record := param.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they are to be typed."""
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")
