"""The commands that look: `status`, `list`, `history`, `result`. `watch` is in `following`, with the live screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click
from rich.text import Text

from interlock.cli.connection import connect
from interlock.cli.options import Options, Verb
from interlock.cli.output.rows import change_row, headlines, run_row, step_row
from interlock.cli.output.screen import Column, Screen
from interlock.cli.output.wording import as_time
from interlock.core.model.states import StepState, WorkflowState

if TYPE_CHECKING:
    from datetime import datetime

    from interlock.cli.connection import Operator

__all__ = ["history", "list_runs", "result", "show_history", "show_list", "show_result", "show_status", "status"]

_SHOWN_STEPS: Final = 40
_WIDE: Final = 100
_QUIET: Final = frozenset({StepState.PENDING, StepState.COMPLETED, StepState.SKIPPED, StepState.CANCELLED})


def show_status(client: Operator, run_id: str, screen: Screen, *, every_step: bool = False) -> None:
    """Print a run and its steps.

    Args:
        client: Whom to ask.
        run_id: The run.
        screen: Where to print.
        every_step: Print all steps; else, of a large run, only those in which something happens.

    Raises:
        RunNotFound: No such run in the client's session.
    """
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


def show_list(
    client: Operator,
    screen: Screen,
    *,
    state: str | None = None,
    name: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    limit: int = 50,
) -> None:
    """Print a session's runs, newest first; None does not restrict."""
    runs = client.list(
        status=state,
        name=name,
        created_after=created_after,
        created_before=created_before,
        limit=limit,
    )
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


def show_history(client: Operator, run_id: str, screen: Screen, *, after_seq: int = 0, last: int | None = None) -> None:
    """Print a run's state changes in order of seq.

    Args:
        client: Whom to ask.
        run_id: The run.
        screen: Where to print.
        after_seq: Only changes after this one.
        last: Only so many, the newest.
    """
    changes = list(client.history(run_id, after_seq))
    if last is not None:
        changes = changes[-last:]
    if screen.as_json:
        screen.document([change.data() for change in changes])
        return
    columns = [Column("SEQ", right=True, whole=True), Column("TIME", whole=True), Column("STEP", whole=True)]
    columns += [Column("CHANGE", whole=True), Column("BY"), Column("REASON")]
    screen.table(columns, (change_row(change) for change in changes))


def show_result(client: Operator, run_id: str, screen: Screen, *, step: str | None = None) -> None:
    """Print what a step returned, or what the last steps of a run did, as JSON."""
    screen.document(client.result(run_id, step))


@click.command(
    "status",
    cls=Verb,
    examples=("interlock status 7d0c2f6e-…", "interlock status --json 7d0c2f6e-… | jq .counts"),
)
@click.argument("run_id")
@click.option("--all", "every_step", is_flag=True, help="Show every step of a large run, those done or waiting, too.")
def status(options: Options, run_id: str, *, every_step: bool) -> None:
    """Show a run: its state, its steps, their attempts and errors."""
    with connect(options) as client:
        show_status(client, run_id, Screen.of(options), every_step=every_step)


@click.command(
    "list",
    cls=Verb,
    examples=("interlock list", "interlock list --status failed --since 24h", "interlock list --name nightly --json"),
)
@click.option(
    "--status", "state", type=click.Choice([state.value for state in WorkflowState]), help="Only in this state."
)
@click.option("--name", help="Only of the workflow of this name.")
@click.option("--since", metavar="WHEN", help="Only created since then: 30m, 2h, 7d, or an ISO 8601 time.")
@click.option("--until", metavar="WHEN", help="Only created before then; as --since.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many at most, newest first."
)
def list_runs(
    options: Options,
    *,
    state: str | None,
    name: str | None,
    since: str | None,
    until: str | None,
    limit: int,
) -> None:
    """List runs, newest first."""
    screen = Screen.of(options)
    created_after, created_before = (
        _typed_time(name, typed, screen) for name, typed in (("since", since), ("until", until))
    )
    with connect(options) as client:
        show_list(
            client,
            screen,
            state=state,
            name=name,
            created_after=created_after,
            created_before=created_before,
            limit=limit,
        )


@click.command(
    "history",
    cls=Verb,
    examples=("interlock history 7d0c2f6e-…", "interlock history 7d0c2f6e-… --last 20"),
)
@click.argument("run_id")
@click.option(
    "--after", "after_seq", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only changes after this one."
)
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N changes.")
def history(options: Options, run_id: str, *, after_seq: int, last: int | None) -> None:
    """Show every state change of a run: what, when, who and why."""
    with connect(options) as client:
        show_history(client, run_id, Screen.of(options), after_seq=after_seq, last=last)


@click.command(
    "result",
    cls=Verb,
    examples=("interlock result 7d0c2f6e-…", "interlock result 7d0c2f6e-… total"),
)
@click.argument("run_id")
@click.argument("step", required=False)
def result(options: Options, run_id: str, step: str | None) -> None:
    """Print results as JSON: of STEP, or of the steps that no other step waits for."""
    with connect(options) as client:
        show_result(client, run_id, Screen.of(options), step=step)


def _typed_time(option: str, typed: str | None, screen: Screen) -> datetime | None:
    if typed is None:
        return None
    try:
        return as_time(typed, screen.now)
    except ValueError:
        message = f"{typed!r} is no time: write 30m, 2h, 7d, or 2026-01-31T08:00"
        raise click.BadParameter(message, param_hint=f"--{option}") from None
