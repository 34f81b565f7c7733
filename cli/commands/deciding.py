"""The commands of people who decide and repair: `approve`, `reject`, `retry`, `settle`, `rerun`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from interlock.cli.client_command import ClientCommand

from .operating import reason, tell

if TYPE_CHECKING:
    from interlock.cli.output.screen import Screen
    from interlock.client.client import Client

__all__ = ["approve", "reject", "rerun", "retry", "settle"]

_AT_RESUME: Final = "in a paused run this is stored, and done when it is resumed"

_comment = click.option("--comment", metavar="TEXT", help="Why; kept with the decision.")


def _json(ctx: click.Context, param: click.Parameter, typed: str) -> Any:
    try:
        return json.loads(typed)
    except ValueError as error:
        message = f"{error}; text goes in quotes, as in '\"text\"'"
        raise click.BadParameter(message, ctx, param) from error


@click.command("approve", cls=ClientCommand, examples=('interlock approve 7d0c2f6e-… publish --comment "checked"',))
@click.argument("run_id")
@click.argument("step")
@_comment
def approve(client: Client, screen: Screen, run_id: str, step: str, *, comment: str | None) -> None:
    """Approve what STEP of a run asks for."""
    client.approve(run_id, step, comment)
    tell(client, screen, run_id, step)


@click.command("reject", cls=ClientCommand, examples=('interlock reject 7d0c2f6e-… publish --comment "wrong month"',))
@click.argument("run_id")
@click.argument("step")
@_comment
def reject(client: Client, screen: Screen, run_id: str, step: str, *, comment: str | None) -> None:
    """Reject what STEP of a run asks for.

    The run is cancelled, or goes on with the decision where its plan says so.
    """
    client.reject(run_id, step, comment)
    tell(client, screen, run_id, step)


@click.command("retry", cls=ClientCommand, examples=('interlock retry 7d0c2f6e-… charge --reason "card fixed"',))
@click.argument("run_id")
@click.argument("step")
@reason
def retry(client: Client, screen: Screen, run_id: str, step: str, *, reason: str | None) -> None:
    """Run the failed STEP of a live run again.

    In a paused run, it runs when that is resumed.
    """
    client.retry(run_id, step, reason)
    tell(client, screen, run_id, step, f"{_AT_RESUME}; to follow it: interlock watch {run_id}")


@click.command(
    "settle",
    cls=ClientCommand,
    examples=("""interlock settle 7d0c2f6e-… charge '{"paid": true}' --reason "paid by bank transfer\"""",),
)
@click.argument("run_id")
@click.argument("step")
@click.argument("result", callback=_json)
@click.option("--reason", metavar="TEXT", required=True, help="Why; kept in the history.")
def settle(client: Client, screen: Screen, run_id: str, step: str, result: Any, *, reason: str) -> None:
    """Give a failed STEP its RESULT (JSON) by hand."""
    client.settle(run_id, step, result, reason)
    tell(client, screen, run_id, step, _AT_RESUME)


@click.command("rerun", cls=ClientCommand, examples=("interlock rerun 7d0c2f6e-…",))
@click.argument("run_id")
@reason
def rerun(client: Client, screen: Screen, run_id: str, *, reason: str | None) -> None:
    """Run what failed or was cancelled again, in a new run.

    What it had completed is reused.
    """
    new_id = client.rerun(run_id, reason)
    screen.done({"run_id": new_id, "forked_from": run_id}, f"run {new_id} goes on where {run_id} ended")
    screen.note(f"to follow it: interlock watch {new_id}")
