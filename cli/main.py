"""`interlock`: the command line of one's own. The same verbs are `celery -A proj workflow …`, see `plugin`."""

from __future__ import annotations

import gc
import sys
from typing import Any, Final

import click

from .command_group import CommandGroup
from .options import remember, shared_options

__all__ = ["interlock", "main"]

_MANY: Final = 50_000  # new objects between two collections: imports make many, and no garbage


@click.group(
    cls=CommandGroup,
    params=shared_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 refused, or the workflow did not complete; 2 wrong usage. "
    "`interlock COMMAND --help` has examples.",
)
@click.version_option(package_name="interlock-celery", prog_name="interlock")
@click.pass_context
def interlock(ctx: click.Context, /, **given: Any) -> None:
    """Durable workflows for Celery.

    Start with `interlock dev -A module:app`, and in a second terminal `interlock run FILE.yaml` and `interlock list`.
    """
    remember(ctx, given)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 shows ? for a glyph, and goes on
    gc.set_threshold(_MANY)
    try:
        interlock(prog_name="interlock")
    finally:
        gc.freeze()  # the process ends: looking for circles among all that was imported would take a quarter of a second


if __name__ == "__main__":
    main()
