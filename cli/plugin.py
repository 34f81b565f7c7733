"""`celery -A proj workflow …`: the verbs of `interlock`, on the app that Celery has loaded.

Every start of `celery`, a worker's too, imports this module, so it loads nothing but click.
"""

from __future__ import annotations

from typing import Any

import click

from .command_group import CommandGroup
from .options import remember, shared_options

__all__ = ["workflow"]


@click.group(
    "workflow",
    cls=CommandGroup,
    without=frozenset({"completion", "dev"}),
    params=shared_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.pass_context
def workflow(ctx: click.Context, /, **given: Any) -> None:
    """Run, watch and steer durable workflows (Interlock)."""
    remember(ctx, {"application": ctx.obj.app, **given})
