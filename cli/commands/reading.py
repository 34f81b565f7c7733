"""The commands that read: `status`, `list`, `history`, `result`, `explain`. `watch` is in `following`, with the live screen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
from rich.text import Text

from interlock.cli.client_command import ClientCommand
from interlock.cli.output.rows import change_row, headlines, run_row, step_row
from interlock.cli.output.screen import Column, Screen
from interlock.cli.output.wording import as_time
from interlock.core.model.states import StepState, WorkflowState

if TYPE_CHECKING:
    from interlock.client.client import Client

__all__ = ["explain", "history", "list_runs", "result", "status"]

_SHOWN_STEPS: Final = 40
_WIDE: Final = 100
_QUIET: Final = frozenset({StepState.PENDING, StepState.COMPLETED, StepState.SKIPPED, StepState.CANCELLED})


def _time(ctx: click.Context, param: click.Parameter, typed: str | None) -> datetime | None:
    try:
        return None if typed is None else as_time(typed, datetime.now(UTC))
    except ValueError:
        message = f"{typed!r} is no time: write 30m, 2h, 7d, or 2026-01-31T08:00"
        raise click.BadParameter(message, ctx, param) from None


@click.command(
    "status",
    cls=ClientCommand,
    examples=("interlock status 7d0c2f6e-…", "interlock status --json 7d0c2f6e-… | jq .counts"),
)
@click.argument("run_id")
@click.option("--all", "every_step", is_flag=True, help="Show every step of a large run, those done or waiting, too.")
def status(client: Client, screen: Screen, run_id: str, *, every_step: bool) -> None:
    """Show a run: its state, its steps, their attempts and errors."""
    run = client.status(run_id)
    if screen.as_json:
        screen.document(run)
        return
    for name, value in headlines(run, screen.now):
        screen.line(Text.assemble((f"{name:<9}", "dim"), value))
    steps: list[dict[str, Any]] = run["steps"]
    if not steps:
        return
    shown = (
        steps if every_step or len(steps) <= _SHOWN_STEPS else [step for step in steps if step["status"] not in _QUIET]
    )
    screen.line()
    columns = [
        Column("STEP", whole=True),
        Column("STATE", whole=True),
        Column("TRY", right=True),
        Column("TIME", right=True),
    ]
    screen.table([*columns, Column("TASK"), Column("NOTE")], (step_row(step, screen.now) for step in shown))
    if len(shown) < len(steps):
        screen.note(f"{len(steps) - len(shown):,} more steps that wait or are done; --all shows them")


@click.command(
    "list",
    cls=ClientCommand,
    examples=("interlock list", "interlock list --status failed --since 24h", "interlock list --name nightly --json"),
)
@click.option("--status", type=click.Choice([state.value for state in WorkflowState]), help="Only in this state.")
@click.option("--name", help="Only of the workflow of this name.")
@click.option(
    "--since",
    "created_after",
    metavar="WHEN",
    callback=_time,
    help="Only created since then: 30m, 2h, 7d, or an ISO 8601 time.",
)
@click.option("--until", "created_before", metavar="WHEN", callback=_time, help="Only created before then; as --since.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many at most, newest first."
)
def list_runs(client: Client, screen: Screen, **wanted: Any) -> None:
    """List runs, newest first."""
    runs = client.list(**wanted)
    if screen.as_json:
        screen.document(runs)
        return
    if not runs:
        screen.note("no workflow runs match")
        return
    columns = [Column("RUN", whole=True), Column("NAME"), Column("STATE", whole=True), Column("STEPS", right=True)]
    if not screen.is_live or screen.out.width >= _WIDE:  # else the ids would be cut, and nobody could type them
        columns += [Column("CREATED", whole=True), Column("TIME", right=True)]
    screen.table(columns, (run_row(run, screen.now)[: len(columns)] for run in runs))


@click.command(
    "history",
    cls=ClientCommand,
    examples=("interlock history 7d0c2f6e-…", "interlock history 7d0c2f6e-… --last 20"),
)
@click.argument("run_id")
@click.option(
    "--after", "after_seq", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only changes after this one."
)
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N changes.")
def history(client: Client, screen: Screen, run_id: str, *, after_seq: int, last: int | None) -> None:
    """Show every state change of a run: what, when, who and why."""
    changes = client.history(run_id, after_seq)
    if last is not None:
        changes = changes[-last:]
    if screen.as_json:
        screen.document([change.data() for change in changes])
        return
    columns = [Column("SEQ", right=True, whole=True), Column("TIME", whole=True), Column("STEP", whole=True)]
    columns += [Column("CHANGE", whole=True), Column("BY"), Column("REASON")]
    screen.table(columns, (change_row(change) for change in changes))


@click.command(
    "result",
    cls=ClientCommand,
    examples=("interlock result 7d0c2f6e-…", "interlock result 7d0c2f6e-… total"),
)
@click.argument("run_id")
@click.argument("step", required=False)
def result(client: Client, screen: Screen, run_id: str, step: str | None) -> None:
    """Print results as JSON: of STEP, or of the steps that no other step waits for."""
    screen.document(client.result(run_id, step))


@click.command("explain", cls=ClientCommand, examples=("interlock explain 7d0c2f6e-…",))
@click.argument("run_id")
def explain(client: Client, screen: Screen, run_id: str) -> None:
    """Say why a run is not moving, and what to do about it."""
    found = client.explain(run_id)
    if screen.as_json:
        screen.document(found)
        return
    screen.line(found["summary"])
    for reason in found["reasons"]:
        screen.line(f"  {reason['text']}")
