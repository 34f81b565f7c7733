"""The commands that act on a run: `pause`, `resume`, `cancel`. Each prints what the run is afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from interlock.cli.client_command import ClientCommand

if TYPE_CHECKING:
    from interlock.cli.output.screen import Screen
    from interlock.client.client import Client

__all__ = ["cancel", "pause", "reason", "resume", "tell"]

reason = click.option("--reason", metavar="TEXT", help="Why; kept in the history.")


@click.command(
    "pause",
    cls=ClientCommand,
    examples=('interlock pause 7d0c2f6e-… --reason "bad feed"', "interlock pause 7d0c2f6e-… --mode drain"),
)
@click.argument("run_id")
@click.argument("step", required=False)
@reason
@click.option(
    "--mode",
    type=click.Choice(["interrupt", "drain", "terminate"]),
    default="interrupt",
    show_default=True,
    help="For steps that run: raise in their code, let them finish, or kill their process.",
)
def pause(client: Client, screen: Screen, run_id: str, step: str | None, *, reason: str | None, mode: str) -> None:
    """Pause a run, or only STEP of it. No step starts until it is resumed."""
    client.pause(run_id, step, reason=reason, mode=mode)
    tell(client, screen, run_id, step, f"to let it go on: interlock resume {run_id}{f' {step}' if step else ''}")


@click.command("resume", cls=ClientCommand, examples=("interlock resume 7d0c2f6e-…",))
@click.argument("run_id")
@click.argument("step", required=False)
@reason
def resume(client: Client, screen: Screen, run_id: str, step: str | None, *, reason: str | None) -> None:
    """Let a paused run go on, or only STEP of it. What finished meanwhile counts."""
    client.resume(run_id, step, reason=reason)
    tell(client, screen, run_id, step, f"to follow it: interlock watch {run_id}")


@click.command("cancel", cls=ClientCommand, examples=('interlock cancel 7d0c2f6e-… --reason "superseded"',))
@click.argument("run_id")
@reason
def cancel(client: Client, screen: Screen, run_id: str, *, reason: str | None) -> None:
    """Cancel a run: nothing more starts, and what runs is stopped. Again: no change."""
    client.cancel(run_id, reason=reason)
    tell(client, screen, run_id)


def tell(client: Client, screen: Screen, run_id: str, step: str | None = None, advice: str = "") -> None:
    """Print what a run, and one step of it, is now."""
    run = client.status(run_id)
    document = {"run_id": run_id, "status": run["status"]}
    sentence = f"run {run_id} is {_words(run['status'])}"
    if step is not None:
        state = next((item["status"] for item in run["steps"] if item["key"] == step), "unknown")
        document |= {"step": step, "step_status": state}
        sentence = f"step {step} is {_words(state)}, {sentence}"
    screen.done(document, sentence)
    if advice:
        screen.note(advice)


def _words(state: str) -> str:
    return state.replace("_", " ")
