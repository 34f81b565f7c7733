"""The list of commands: one table for `interlock` and `celery workflow`. A command is imported when it is called."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SECTIONS", "CommandGroup", "Entry"]


class Entry(NamedTuple):
    """A command in the list.

    Attributes:
        place: `module:attribute` in this package.
        help: The first sentence of its help, so that the list can be printed without importing it.
    """

    place: str
    help: str


SECTIONS: Final[Mapping[str, Mapping[str, Entry]]] = {
    "Run": {
        "dev": Entry("dev.command:dev", "Run all that is needed: SQLite, a Redis of its own, a worker."),
        "run": Entry("commands.run:run", "Run a workflow and follow it; the exit code is 0 only if it completes."),
    },
    "Look": {
        "list": Entry("commands.reading:list_runs", "List runs, newest first."),
        "status": Entry("commands.reading:status", "Show a run: its state, its steps, their attempts and errors."),
        "watch": Entry("commands.following:watch", "Follow a run until it ends; the exit code is 0 if it completes."),
        "history": Entry("commands.reading:history", "Show every state change of a run: what, when, who and why."),
        "result": Entry(
            "commands.reading:result",
            "Print results as JSON: of STEP, or of the steps that no other step waits for.",
        ),
        "explain": Entry("commands.reading:explain", "Say why a run is not moving, and what to do about it."),
    },
    "Act": {
        "pause": Entry("commands.operating:pause", "Pause a run, or only STEP of it."),
        "resume": Entry("commands.operating:resume", "Let a paused run go on, or only STEP of it."),
        "cancel": Entry("commands.operating:cancel", "Cancel a run: nothing more starts, and what runs is stopped."),
        "approve": Entry("commands.deciding:approve", "Approve what STEP of a run asks for."),
        "reject": Entry("commands.deciding:reject", "Reject what STEP of a run asks for."),
        "retry": Entry("commands.deciding:retry", "Run the failed STEP of a live run again."),
        "settle": Entry("commands.deciding:settle", "Give a failed STEP its RESULT (JSON) by hand."),
        "rerun": Entry("commands.deciding:rerun", "Run what failed or was cancelled again, in a new run."),
    },
    "Plans": {
        "validate": Entry("commands.plans:validate", "Check workflow files: every fault with its line."),
        "graph": Entry("commands.plans:graph", "Draw a plan, or a run in colours, as Mermaid or Graphviz text."),
    },
    "Administration": {
        "db": Entry("commands.administration:db", "Prepare the database and look after its tables."),
        "doctor": Entry("doctor.command:doctor", "Look for what may lose work in a deployment."),
        "verify": Entry("commands.verifying:verify", "Check the history of a run, or of all runs of all sessions."),
        "completion": Entry(
            "commands.completion:completion",
            "Print the script that makes a shell complete commands and options.",
        ),
    },
}
"""Heading → command → where it is, and what it does."""


class CommandGroup(click.Group):
    """A group of the commands above. Nothing of them is imported until one is called.

    Args:
        without: Names of commands that it does not have.
    """

    def __init__(self, *args: Any, without: frozenset[str] = frozenset(), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sections = {
            heading: {name: entry for name, entry in entries.items() if name not in without}
            for heading, entries in SECTIONS.items()
        }
        self._entries = {name: entry for entries in self._sections.values() for name, entry in entries.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order of the sections."""
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command."""
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        command: click.Command = getattr(import_module(f"{__package__}.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed; a near miss is named in the error."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], self._entries, n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Write the commands under their headings."""
        for heading, entries in self._sections.items():
            if entries:
                with formatter.section(heading):
                    formatter.write_dl([(name, entry.help) for name, entry in entries.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands and options that begin like this."""
        commands = [
            CompletionItem(name, help=entry.help)
            for name, entry in self._entries.items()
            if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]
