"""The class of the commands that ask a client: their functions get it open, and a screen, before their own parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .connection import connect
from .options import OptionsCommand
from .output.screen import Screen

if TYPE_CHECKING:
    import click

    from .options import Options

__all__ = ["ClientCommand"]


class ClientCommand(OptionsCommand):
    """Calls `function(client, screen, **parameters)`, and closes the client afterwards."""

    def call(self, ctx: click.Context, options: Options) -> Any:
        """Connect, and call the function."""
        with connect(options) as client:
            return ctx.invoke(self.function, client, Screen.of(options), **ctx.params)
