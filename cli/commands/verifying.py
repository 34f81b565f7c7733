"""`verify`: checks the history and the rows. Prints findings as they are found, one a line, then what was looked at."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.live import Live
from rich.text import Text

from interlock.cli.connection import database_url
from interlock.cli.options import Options, OptionsCommand
from interlock.cli.output.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from interlock.core.verify import Finding, Verification

__all__ = ["verify", "verify_database"]

_PROGRESS_PER_S = 4


def verify_database(url: str, screen: Screen, run_id: str | None = None) -> bool:
    """Replay the history of a run, or of every run, and print what must not be.

    Returns:
        Whether nothing was found.
    """
    from interlock.core.database.database import open_database
    from interlock.core.database.revision import require_revision
    from interlock.core.verify import Verification
    from interlock.core.verify import verify as find

    database = open_database(url)
    verification = Verification()
    try:
        require_revision(database)
        with _progress(screen, verification) if run_id is None else nullcontext():
            for finding in find(database, verification, run_id):
                _show(finding, screen)
    finally:
        database.dispose()
    if screen.as_json:
        screen.record({"type": "summary", **_counts(verification)})
    else:
        screen.line(_summary(verification))
    return verification.clean


def _show(finding: Finding, screen: Screen) -> None:
    if screen.as_json:
        screen.record({"type": "finding", **asdict(finding)})
        return
    place = f" at seq {finding.seq}" if finding.seq is not None else ""
    screen.line(f"{finding.run_id} {finding.entity}{place}: {finding.text} ({finding.kind})")


def _counts(verification: Verification) -> dict[str, Any]:
    return {
        "clean": verification.clean,
        "runs": verification.runs,
        "steps": verification.steps,
        "rows": verification.rows,
        "without_history": verification.without_history,
        "findings": dict(verification.findings),
    }


def _summary(verification: Verification) -> str:
    looked = f"{verification.runs:,} runs, {verification.steps:,} steps, {verification.rows:,} rows of history"
    found = verification.findings.total()
    verdict = "clean" if verification.clean else f"{found:,} finding{'' if found == 1 else 's'} (docs/verify.md)"
    older = f"; {verification.without_history:,} entities without history" if verification.without_history else ""
    return f"{looked}: {verdict}{older}"


@contextmanager
def _progress(screen: Screen, verification: Verification) -> Iterator[None]:
    """Show how far it is, where a person looks on: beside the findings, or on standard error where those go to a program."""
    console = _watched(screen)
    if console is None:
        yield
        return

    def shown() -> Text:
        return Text(f"{verification.runs:,} runs, {verification.rows:,} rows of history so far …", style="dim")

    with Live(console=console, get_renderable=shown, refresh_per_second=_PROGRESS_PER_S, transient=True):
        yield


def _watched(screen: Screen) -> Console | None:
    if screen.out.is_terminal:
        return None if screen.as_json else screen.out
    return screen.err if screen.err.is_terminal else None


@click.command(
    "verify",
    cls=OptionsCommand,
    answers=True,
    examples=("interlock verify", "interlock verify 7d0c2f6e-…", "interlock verify --json > findings.jsonl"),
)
@click.argument("run_id", required=False)
@click.pass_context
def verify(ctx: click.Context, options: Options, run_id: str | None) -> None:
    """Check the history of a run, or of all runs of all sessions.

    It is replayed and compared with what is there, as it is found at this moment; nothing is changed, and workers may go on.
    With --json each finding is a line, and the last line is the summary. The exit code is 0 where all is sound, 1 where
    something was found, and 2 where it could not be checked.
    """
    if not verify_database(database_url(options), Screen.of(options), run_id):
        ctx.exit(1)
