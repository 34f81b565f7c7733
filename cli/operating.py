"""The commands that act on a run: `pause`, `resume`, `cancel`. Each prints what the run is afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .connection import connect
from .options import Options, Verb
from .screen import Screen

if TYPE_CHECKING:
    from .connection import Operator

__all__ = ["cancel", "cancel_run", "pause", "pause_run", "resume", "resume_run"]

_reason = click.option("--reason", metavar="TEXT", help="Why; kept in the history.")


def pause_run(
    client: Operator,
    run_id: str,
    screen: Screen,
    *,
    reason: str | None = None,
    mode: str = "interrupt",
) -> None:
    """Pause a run and say what it is now.

    Raises:
        InterlockError: The run cannot be paused now, or is not there.
    """
    client.pause(run_id, reason=reason, mode=mode)
    _tell(client, run_id, screen, f"`interlock resume {run_id}` lets it go on")


def resume_run(client: Operator, run_id: str, screen: Screen, *, reason: str | None = None) -> None:
    """Resume a paused run and say what it is now.

    Raises:
        InterlockError: It is not paused, or not there.
    """
    client.resume(run_id, reason=reason)
    _tell(client, run_id, screen, f"`interlock watch {run_id}` follows it")


def cancel_run(client: Operator, run_id: str, screen: Screen, *, reason: str | None = None) -> None:
    """Cancel a run and say what it is now.

    Raises:
        InterlockError: It has ended otherwise, or is not there.
    """
    client.cancel(run_id, reason=reason)
    _tell(client, run_id, screen)


@click.command(
    "pause",
    cls=Verb,
    examples=('interlock pause 7d0c2f6e-… --reason "bad feed"', "interlock pause 7d0c2f6e-… --mode drain"),
)
@click.argument("run_id")
@_reason
@click.option(
    "--mode",
    type=click.Choice(["interrupt", "drain", "terminate"]),
    default="interrupt",
    show_default=True,
    help="For steps that run: raise in their code, let them finish, or kill their process.",
)
def pause(options: Options, run_id: str, *, reason: str | None, mode: str) -> None:
    """Pause a run. No step starts until it is resumed."""
    with connect(options) as client:
        pause_run(client, run_id, Screen.of(options), reason=reason, mode=mode)


@click.command("resume", cls=Verb, examples=("interlock resume 7d0c2f6e-…",))
@click.argument("run_id")
@_reason
def resume(options: Options, run_id: str, *, reason: str | None) -> None:
    """Let a paused run go on. What finished meanwhile counts."""
    with connect(options) as client:
        resume_run(client, run_id, Screen.of(options), reason=reason)


@click.command("cancel", cls=Verb, examples=('interlock cancel 7d0c2f6e-… --reason "superseded"',))
@click.argument("run_id")
@_reason
def cancel(options: Options, run_id: str, *, reason: str | None) -> None:
    """Cancel a run: nothing more starts, and what runs is stopped. Again: no change."""
    with connect(options) as client:
        cancel_run(client, run_id, Screen.of(options), reason=reason)


def _tell(client: Operator, run_id: str, screen: Screen, advice: str = "") -> None:
    status = client.status(run_id)["status"]
    screen.done({"run_id": run_id, "status": status}, f"run {run_id} is {status.replace('_', ' ')}")
    if advice:
        screen.note(advice)
