"""The table of verbs in docs/verbs.md, made of `interlock.signals.control.verbs.VERBS`."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING

from interlock.client.client import Client
from interlock.signals.control.verbs import VERBS, Change, Hint, Query, Verb

from .commands_table import usages

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["render"]

_KINDS = {Change: "once per id", Query: "reads", Hint: "hint"}


def render() -> str:
    """The table as Markdown: each verb with its arguments, its names in Python and on the command line, and what it does."""
    commands = usages()
    rows = [f"| {' | '.join(_row(verb, commands))} |" for verb in VERBS.values()]
    return "\n".join(
        [
            "| command | of a run | arguments | kind | `Client` | command line | what it does |",
            "|---" * 7 + "|",
            *rows,
            "",
        ]
    )


def _row(verb: Verb, commands: dict[str, str]) -> list[str]:
    method = None if isinstance(verb, Hint) else getattr(Client, verb.client_method)
    told = inspect.getdoc(verb.act if isinstance(verb, Hint) else method) or ""
    return [
        f"`{verb.name}`",
        "yes" if verb.needs_run else "",
        ", ".join(_argument(name, field) for name, field in verb.args.model_fields.items()),
        _KINDS[type(verb)],
        f"`{verb.client_method}`" if method else "",
        f"`{commands[verb.client_method]}`" if verb.has_command else "",
        told.partition("\n")[0],
    ]


def _argument(name: str, field: FieldInfo) -> str:
    """`name` where it is required, `name=default` where it has one, `name?` where it may be left out."""
    if field.is_required():
        return f"`{name}`"
    return f"`{name}?`" if field.default is None else f"`{name}={json.dumps(field.default)}`"
