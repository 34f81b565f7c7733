"""The list of commands: one table for `interlock` and `celery workflow`, each loaded when it is called."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SECTIONS", "CommandGroup"]

SECTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "Run": {"dev": "dev.command:dev", "run": "commands.run:run"},
    "Look": {
        "list": "commands.reading:list_runs",
        "status": "commands.reading:status",
        "watch": "commands.following:watch",
        "history": "commands.reading:history",
        "result": "commands.reading:result",
        "explain": "commands.explaining:explain",
    },
    "Act": {
        "pause": "commands.operating:pause",
        "resume": "commands.operating:resume",
        "cancel": "commands.operating:cancel",
        "approve": "commands.deciding:approve",
        "reject": "commands.deciding:reject",
        "retry": "commands.deciding:retry",
        "settle": "commands.deciding:settle",
        "rerun": "commands.deciding:rerun",
    },
    "Plans": {"validate": "commands.plans:validate", "graph": "commands.plans:graph"},
    "Administration": {
        "db": "commands.administration:db",
        "doctor": "doctor:doctor",
        "verify": "commands.verifying:verify",
        "completion": "commands.administration:completion",
    },
}
"""Heading → command → `module:attribute` in this package."""


class CommandGroup(click.Group):
    """A group of the commands above. Nothing of them is imported until one is asked for.

    Args:
        without: Names of commands that it does not have.
    """

    def __init__(self, *args: Any, without: frozenset[str] = frozenset(), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = {
            name: place for section in SECTIONS.values() for name, place in section.items() if name not in without
        }

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order of the sections."""
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command."""
        place = self._places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(import_module(f"{__package__}.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed; a near miss is named in the error."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], self._places, n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings."""
        for heading, names in SECTIONS.items():
            commands = ((name, self.get_command(ctx, name)) for name in names)
            records = [(name, command.get_short_help_str(80)) for name, command in commands if command is not None]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
