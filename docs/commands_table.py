"""The table of commands in README.md, made of the command line itself, and the client's verbs that it does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from interlock.cli.main import interlock
from interlock.client.client import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["render", "usages"]

_WHOLE: Final = 200
_NOT_VERBS: Final = frozenset({"awatch", "awatch_session", "close", "enqueue", "wait"})
"""Of the client's methods, those that a command is not to be expected for: `run` enqueues and waits."""


def render() -> str:
    """The table as Markdown: each command with its arguments, and what it does."""
    context = click.Context(interlock, info_name="interlock")
    rows = [f"| `{usage}` | {what} |" for usage, what in _commands(context)]
    return "\n".join(["| command | what it does |", "|---|---|", *rows, *_in_python_alone(context), ""])


def usages() -> dict[str, str]:
    """How each command is typed, by its name; those of a group by their own names."""
    context = click.Context(interlock, info_name="interlock")
    return {usage.split()[1]: usage for usage, _ in _commands(context)}


def _in_python_alone(context: click.Context) -> Iterator[str]:
    verbs = {name for name in dir(Client) if not name.startswith("_") and callable(getattr(Client, name))}
    missing = sorted(verbs - _NOT_VERBS - {*interlock.list_commands(context)})
    if missing:
        yield ""
        yield f"So far in the Python client alone: {', '.join(f'`{name}`' for name in missing)}."


def _commands(context: click.Context) -> Iterator[tuple[str, str]]:
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        # With its own settings: a command keeps the help option that it was first asked for.
        inner = click.Context(command, info_name=name, parent=context, **command.context_settings)
        if isinstance(command, click.Group):
            yield from _commands(inner)
        else:
            pieces = [piece for piece in command.collect_usage_pieces(inner) if piece != "[OPTIONS]"]
            yield " ".join([inner.command_path, *pieces]).replace("|", "\\|"), command.get_short_help_str(_WHOLE)
