"""The commands that act on a run: `pause`, `resume`, `cancel`. Each prints what the run is afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from interlock.cli.connection import connect
from interlock.cli.options import Options, Verb
from interlock.cli.output.screen import Screen

if TYPE_CHECKING:
    from interlock.cli.connection import Operator

__all__ = ["cancel", "cancel_run", "pause", "pause_run", "resume", "resume_run", "tell"]

_reason = click.option("--reason", metavar="TEXT", help="Why; kept in the history.")


def pause_run(
    client: Operator,
    run_id: str,
    screen: Screen,
    *,
    step: str | None = None,
    reason: str | None = None,
    mode: str = "interrupt",
) -> None:
    """Pause a run, or one running step of it, and say what it is now.

    Raises:
        InterlockError: The run cannot be paused now, or is not there.
    """
    client.pause(run_id, step, reason=reason, mode=mode)
    tell(client, run_id, screen, step, f"to let it go on: interlock resume {run_id}{f' {step}' if step else ''}")


def resume_run(
    client: Operator,
    run_id: str,
    screen: Screen,
    *,
    step: str | None = None,
    reason: str | None = None,
) -> None:
    """Resume a paused run, or a step that was paused by itself, and say what it is now.

    Raises:
        InterlockError: It is not paused, or not there.
    """
    client.resume(run_id, step, reason=reason)
    tell(client, run_id, screen, step, f"to follow it: interlock watch {run_id}")


def cancel_run(client: Operator, run_id: str, screen: Screen, *, reason: str | None = None) -> None:
    """Cancel a run and say what it is now.

    Raises:
        InterlockError: It has ended otherwise, or is not there.
    """
    client.cancel(run_id, reason=reason)
    tell(client, run_id, screen)


@click.command(
    "pause",
    cls=Verb,
    examples=('interlock pause 7d0c2f6e-… --reason "bad feed"', "interlock pause 7d0c2f6e-… --mode drain"),
)
@click.argument("run_id")
@click.argument("step", required=False)
@_reason
@click.option(
    "--mode",
    type=click.Choice(["interrupt", "drain", "terminate"]),
    default="interrupt",
    show_default=True,
    help="For steps that run: raise in their code, let them finish, or kill their process.",
)
def pause(options: Options, run_id: str, step: str | None, *, reason: str | None, mode: str) -> None:
    """Pause a run, or only STEP of it. No step starts until it is resumed."""
    with connect(options) as client:
        pause_run(client, run_id, Screen.of(options), step=step, reason=reason, mode=mode)


@click.command("resume", cls=Verb, examples=("interlock resume 7d0c2f6e-…",))
@click.argument("run_id")
@click.argument("step", required=False)
@_reason
def resume(options: Options, run_id: str, step: str | None, *, reason: str | None) -> None:
    """Let a paused run go on, or only STEP of it. What finished meanwhile counts."""
    with connect(options) as client:
        resume_run(client, run_id, Screen.of(options), step=step, reason=reason)


@click.command("cancel", cls=Verb, examples=('interlock cancel 7d0c2f6e-… --reason "superseded"',))
@click.argument("run_id")
@_reason
def cancel(options: Options, run_id: str, *, reason: str | None) -> None:
    """Cancel a run: nothing more starts, and what runs is stopped. Again: no change."""
    with connect(options) as client:
        cancel_run(client, run_id, Screen.of(options), reason=reason)


def tell(client: Operator, run_id: str, screen: Screen, step: str | None = None, advice: str = "") -> None:
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
