"""Shows a run while it goes on: a table that stays in place on a terminal, a line per change in a pipe, JSON lines for programs."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Final

import click
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from interlock.cli.client_command import ClientCommand
from interlock.cli.failures import EXIT_REFUSED
from interlock.cli.output.board import Board
from interlock.cli.output.screen import Screen
from interlock.cli.output.wording import duration, elapsed_s, error_line, moment, state_text

from .progress import progress_told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from rich.console import RenderableType

    from interlock.cli.output.board import StepRow
    from interlock.client.client import Client
    from interlock.core.events import StateChange

    _Display: TypeAlias = tuple[Callable[[StateChange], None], Callable[[str, str], None]]

__all__ = ["follow", "print_changes", "report_end", "watch"]

_MOST_ROWS: Final = 40
_SUMMARY_ROWS: Final = 12
_FRAME_LINES: Final = 6  # what stands around the rows, and a line for the prompt
_REFRESH_PER_S: Final = 8
_BAR_WIDTH: Final = 30
_INTERRUPTED: Final = 130


def follow(client: Client, run_id: str, screen: Screen | None = None, *, silent: bool = False) -> str:
    """Show a run from its first change until it ends.

    Args:
        client: Whom to ask.
        run_id: The run.
        screen: Where to show it; standard output by default.
        silent: Only wait.

    Returns:
        The final state: `completed`, `failed` or `cancelled`.

    Raises:
        RunNotFound: No such run in the client's session.
        KeyboardInterrupt: Ctrl-C; the run goes on.
    """
    screen = screen or Screen()
    board = Board(client.status(run_id))
    with _shown(board, screen, silent=silent) as (show, tell), progress_told(client, run_id, tell):
        for change in client.watch(run_id):
            show(change)
    return board.state


def print_changes(client: Client, run_id: str, screen: Screen, *, after_seq: int = 0) -> str:
    """Print each change as a line (JSON where the screen is for programs) until the run ends.

    Returns:
        The final state.
    """
    state = str(client.status(run_id)["status"])
    with nullcontext() if screen.as_json else progress_told(client, run_id, _line_teller(screen)):
        for change in client.watch(run_id, after_seq):
            if screen.as_json:
                click.echo(json.dumps(change.data(), ensure_ascii=False))
            else:
                screen.line(_change_line(change))
            state = change.to_state if change.step_key is None else state
    return state


def report_end(client: Client, run_id: str, screen: Screen) -> bool:
    """Say how a run ended, with the errors of its failed steps.

    Returns:
        Whether it completed.
    """
    run = client.status(run_id)
    completed = bool(run["status"] == "completed")
    if screen.as_json:
        screen.document(run)
        return completed
    took = duration(elapsed_s(run["started_at"] or run["created_at"], run["completed_at"], screen.now))
    screen.line(state_text(run["status"]).append(f" in {took}"))
    if completed:
        screen.note(f"its results: interlock result {run_id}")
        return True
    errors = [f"{step['key']}: {error_line(step['error'])}" for step in run["steps"] if step["status"] == "failed"]
    for error in errors or [error_line(run["error"])]:
        screen.line(f"  {error}", style="red")
    screen.note(f"what happened: interlock history {run_id}")
    return False


@click.command(
    "watch",
    cls=ClientCommand,
    examples=("interlock watch 7d0c2f6e-…", "interlock watch 7d0c2f6e-… --json | jq .to_state"),
)
@click.argument("run_id")
@click.option(
    "--after", "after_seq", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only changes after this one."
)
@click.option("--lines", is_flag=True, help="A line per change, on a terminal too.")
def watch(client: Client, screen: Screen, run_id: str, *, after_seq: int, lines: bool) -> None:
    """Follow a run until it ends; the exit code is 0 if it completes.

    On a terminal a table shows every step. In a pipe, each change is a line; with --json, a JSON document.
    """
    with unfollowed_on_interrupt(run_id, screen):
        if screen.is_live and not lines and not after_seq:
            follow(client, run_id, screen)
            completed = report_end(client, run_id, screen)
        else:
            completed = print_changes(client, run_id, screen, after_seq=after_seq) == "completed"
    if not completed:
        raise click.exceptions.Exit(EXIT_REFUSED)


@contextmanager
def unfollowed_on_interrupt(run_id: str, screen: Screen, advice: str | None = None) -> Iterator[None]:
    """Ctrl-C inside the block ends the looking, not the run, and says so, or what `advice` says instead."""
    try:
        yield
    except KeyboardInterrupt:
        screen.note(advice or f"the run goes on\n  to follow it: interlock watch {run_id}")
        screen.note(f"  to end it:    interlock cancel {run_id}")
        raise click.exceptions.Exit(_INTERRUPTED) from None


@contextmanager
def _shown(board: Board, screen: Screen, *, silent: bool) -> Iterator[_Display]:
    """What takes in changes, and what takes in progress, for this kind of screen."""
    if silent or screen.as_json:
        yield board.apply, board.progress
    elif not screen.is_live:
        yield lambda change: _print_and_apply(board, screen, change), _line_teller(screen)
    else:
        with _live(board, screen) as display:
            yield display


def _line_teller(screen: Screen) -> Callable[[str, str], None]:
    def tell(key: str, words: str) -> None:
        time = screen.now.astimezone().strftime("%H:%M:%S.%f")[:-3]
        screen.line(Text.assemble((time, "dim"), f"  {key:<20} ", (f"… {words}", "dim")))

    return tell


def _print_and_apply(board: Board, screen: Screen, change: StateChange) -> None:
    board.apply(change)
    screen.line(_change_line(change))


@contextmanager
def _live(board: Board, screen: Screen) -> Iterator[_Display]:
    lock = Lock()  # the screen is drawn by a thread of its own, so that seconds count up while nothing changes

    def show(change: StateChange) -> None:
        with lock:
            board.apply(change)

    def tell(key: str, words: str) -> None:
        with lock:
            board.progress(key, words)

    def draw() -> RenderableType:
        with lock:
            return _picture(board, screen)

    with Live(
        get_renderable=draw, console=screen.out, refresh_per_second=_REFRESH_PER_S, vertical_overflow="crop"
    ) as live:
        yield show, tell
        live.refresh()


def _picture(board: Board, screen: Screen) -> RenderableType:
    room = max(1, screen.out.height - _FRAME_LINES)
    every = len(board.steps) <= min(_MOST_ROWS, room)
    rows = board.rows(len(board.steps) if every else min(_SUMMARY_ROWS, room))
    return Group(_headline(board, screen), *([] if every else [_counted(board)]), _step_table(rows, screen))


def _headline(board: Board, screen: Screen) -> Table:
    took = duration(elapsed_s(board.started_at, board.ended_at, screen.now))
    total, settled = len(board.steps), board.settled
    style = "red" if board.state == "failed" else "green" if board.state == "completed" else "blue"
    bar = ProgressBar(
        total=max(total, 1), completed=settled, width=_BAR_WIDTH, complete_style=style, finished_style=style
    )
    line = Table.grid(padding=(0, 2))
    line.add_row(Text(board.name, style="bold"), state_text(board.state), bar, f"{settled:,}/{total:,} steps", took)
    return line


def _counted(board: Board) -> Text:
    parts = [state_text(state).append(f" {count:,}") for state, count in board.counts.items()]
    return Text("   ").join(parts)


def _step_table(rows: list[StepRow], screen: Screen) -> Table:
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    for row in rows:
        took = duration(elapsed_s(row.started_at, row.ended_at, screen.now))
        attempt = f"attempt {row.attempt}" if row.attempt > 1 else ""
        table.add_row(row.key, state_text(row.state), took, attempt, row.note)
    return table


def _change_line(change: StateChange) -> Text:
    at = moment(change.created_at)
    time = at.astimezone().strftime("%H:%M:%S.%f")[:-3] if at else ""
    line = Text.assemble((time, "dim"), f"  {change.step_key or 'workflow':<20} ", state_text(change.to_state))
    if change.attempt and change.attempt > 1 and change.step_key:
        line.append(f", attempt {change.attempt}")
    reason = error_line(change.reason)
    return line.append(f"  ({reason})", style="dim") if reason else line
