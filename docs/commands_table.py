"""The table of commands in README.md, made of the command line itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from interlock.cli.main import interlock

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["render"]

_WHOLE: Final = 200


def render() -> str:
    """The table as Markdown: each command with its arguments, and what it does."""
    context = click.Context(interlock, info_name="interlock")
    rows = [f"| `{usage}` | {what} |" for usage, what in _commands(context)]
    return "\n".join(["| command | what it does |", "|---|---|", *rows, ""])


def _commands(context: click.Context) -> Iterator[tuple[str, str]]:
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield from _commands(inner)
        else:
            pieces = [piece for piece in command.collect_usage_pieces(inner) if piece != "[OPTIONS]"]
            yield " ".join([inner.command_path, *pieces]).replace("|", "\\|"), command.get_short_help_str(_WHOLE)
