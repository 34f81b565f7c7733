"""The commands of people who decide and repair: `approve`, `reject`, `retry`, `settle`, `rerun`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from interlock.cli.connection import connect
from interlock.cli.options import Options, Verb
from interlock.cli.output.screen import Screen

from .operating import tell

if TYPE_CHECKING:
    from interlock.cli.connection import Operator

_KEPT = "in a paused run this is kept, and done when it is resumed"

__all__ = ["approve", "decide", "reject", "rerun", "rerun_run", "retry", "retry_step", "settle", "settle_step"]

_comment = click.option("--comment", metavar="TEXT", help="Why; kept with the decision.")
_reason = click.option("--reason", metavar="TEXT", help="Why; kept in the history.")


def decide(
    client: Operator,
    run_id: str,
    step: str,
    screen: Screen,
    *,
    approved: bool,
    comment: str | None = None,
) -> None:
    """Approve or reject what a step asks for, and say what it is now.

    Raises:
        InterlockError: It was decided before, asks for nothing, or this actor may not decide it.
    """
    (client.approve if approved else client.reject)(run_id, step, comment)
    tell(client, run_id, screen, step)


def retry_step(client: Operator, run_id: str, step: str, screen: Screen, *, reason: str | None = None) -> None:
    """Run a failed step of a live run again, and say what it is now.

    Raises:
        InterlockError: It has not failed, or the run has ended.
    """
    client.retry(run_id, step, reason)
    tell(client, run_id, screen, step, f"{_KEPT}; to follow it: interlock watch {run_id}")


def settle_step(client: Operator, run_id: str, step: str, result: Any, screen: Screen, *, reason: str) -> None:
    """Give a failed step its result by hand, and say what it is now.

    Raises:
        InterlockError: It has not failed, or the run has ended.
    """
    client.settle(run_id, step, result, reason)
    tell(client, run_id, screen, step, _KEPT)


def rerun_run(client: Operator, run_id: str, screen: Screen, *, reason: str | None = None) -> str:
    """Start a new run of one that ended badly; returns its id.

    Raises:
        InterlockError: The run has not ended failed or cancelled.
    """
    new_id = client.rerun(run_id, reason)
    screen.done({"run_id": new_id, "forked_from": run_id}, f"run {new_id} goes on where {run_id} ended")
    screen.note(f"to follow it: interlock watch {new_id}")
    return new_id


@click.command("approve", cls=Verb, examples=('interlock approve 7d0c2f6e-… publish --comment "checked"',))
@click.argument("run_id")
@click.argument("step")
@_comment
def approve(options: Options, run_id: str, step: str, *, comment: str | None) -> None:
    """Approve what STEP of a run asks for."""
    with connect(options) as client:
        decide(client, run_id, step, Screen.of(options), approved=True, comment=comment)


@click.command("reject", cls=Verb, examples=('interlock reject 7d0c2f6e-… publish --comment "wrong month"',))
@click.argument("run_id")
@click.argument("step")
@_comment
def reject(options: Options, run_id: str, step: str, *, comment: str | None) -> None:
    """Reject what STEP of a run asks for.

    The run is cancelled, or goes on with the decision where its plan says so.
    """
    with connect(options) as client:
        decide(client, run_id, step, Screen.of(options), approved=False, comment=comment)


@click.command("retry", cls=Verb, examples=('interlock retry 7d0c2f6e-… charge --reason "card fixed"',))
@click.argument("run_id")
@click.argument("step")
@_reason
def retry(options: Options, run_id: str, step: str, *, reason: str | None) -> None:
    """Run the failed STEP of a live run again.

    In a paused run, it runs when that is resumed.
    """
    with connect(options) as client:
        retry_step(client, run_id, step, Screen.of(options), reason=reason)


@click.command(
    "settle",
    cls=Verb,
    examples=("""interlock settle 7d0c2f6e-… charge '{"paid": true}' --reason "paid by bank transfer\"""",),
)
@click.argument("run_id")
@click.argument("step")
@click.argument("result")
@click.option("--reason", metavar="TEXT", required=True, help="Why; kept in the history.")
def settle(options: Options, run_id: str, step: str, result: str, *, reason: str) -> None:
    """Give a failed STEP its RESULT (JSON) by hand."""
    try:
        document = json.loads(result)
    except ValueError as error:
        message = f"{error}; text goes in quotes, as in '\"text\"'"
        raise click.BadParameter(message, param_hint="RESULT") from error
    with connect(options) as client:
        settle_step(client, run_id, step, document, Screen.of(options), reason=reason)


@click.command("rerun", cls=Verb, examples=("interlock rerun 7d0c2f6e-…",))
@click.argument("run_id")
@_reason
def rerun(options: Options, run_id: str, *, reason: str | None) -> None:
    """Run what failed or was cancelled again, in a new run.

    What it had completed is reused.
    """
    with connect(options) as client:
        rerun_run(client, run_id, Screen.of(options), reason=reason)
