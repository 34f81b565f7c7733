"""The names that users write: imports, commands and options, settings, tables and columns.

`python -m tests.public_names` writes them into public_names.json, whose first version is that of 0.1.0.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from interlock.cli.main import interlock
from interlock.cli.plugin import workflow
from interlock.core import WorkflowRun
from interlock.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FILE", "MODULES", "found", "stored"]

FILE: Final = Path(__file__).with_suffix(".json")
MODULES: Final = (
    *("interlock", "interlock.core", "interlock.core.errors", "interlock.core.verify"),
    *("interlock.migrations", "interlock.worker"),
)


def found() -> dict[str, list[str]]:
    """Kind of names → those that the code has, sorted."""
    tables = WorkflowRun.metadata.tables.values()
    return {
        **{module: sorted(import_module(module).__all__) for module in MODULES},
        "commands": sorted(_words(interlock, "interlock")),
        "celery workflow": sorted(workflow.list_commands(click.Context(workflow))),
        "settings": sorted(Settings.model_fields),
        "columns": sorted(f"{table.name}.{column.name}" for table in tables for column in table.columns),
    }


def stored() -> dict[str, list[str]]:
    """Kind of names → those that are promised."""
    names: dict[str, list[str]] = json.loads(FILE.read_text(encoding="utf-8"))
    return names


def _words(command: click.Command, path: str) -> Iterator[str]:
    """Every command of a group with its arguments, its options, and the words that an option takes."""
    yield path
    for param in command.params:
        is_option = isinstance(param, click.Option)
        for name in (*param.opts, *param.secondary_opts) if is_option else [param.human_readable_name]:
            yield f"{path} {name}"
            if isinstance(param.type, click.Choice):
                yield from (f"{path} {name} {choice}" for choice in param.type.choices)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _words(inner, f"{path} {name}")


if __name__ == "__main__":
    FILE.write_text(json.dumps(found(), indent=1) + "\n", encoding="utf-8")
