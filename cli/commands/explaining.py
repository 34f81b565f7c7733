"""`explain`: why is a run not moving?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from interlock.cli.connection import connect
from interlock.cli.options import Options, Verb
from interlock.cli.output.screen import Screen

if TYPE_CHECKING:
    from interlock.cli.connection import Operator

__all__ = ["explain", "explain_run"]


def explain_run(client: Operator, run_id: str, screen: Screen) -> None:
    """Print why a run does not move, and what to do about it.

    Raises:
        RunNotFound: No such run in the client's session.
    """
    found = client.explain(run_id)
    if screen.as_json:
        screen.document(found)
        return
    screen.line(found["summary"])
    for reason in found["reasons"]:
        screen.line(f"  {reason['text']}")


@click.command("explain", cls=Verb, examples=("interlock explain 7d0c2f6e-…",))
@click.argument("run_id")
def explain(options: Options, run_id: str) -> None:
    """Say why a run is not moving, and what to do about it."""
    with connect(options) as client:
        explain_run(client, run_id, Screen.of(options))
