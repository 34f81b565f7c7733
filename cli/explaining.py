"""The commands that say what is going on: `explain` (why is it not moving?) and `verify` (is the record sound?)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .administration import database_url
from .connection import connect
from .options import Options, Verb
from .screen import Screen

if TYPE_CHECKING:
    from interlock.core.verify import Finding

    from .connection import Operator

__all__ = ["explain", "explain_run", "verify", "verify_database"]

_SHOWN_FINDINGS = 100


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


def verify_database(url: str, screen: Screen, run_id: str | None = None) -> bool:
    """Replay the history of a run, or of every run, and print what must not be.

    Returns:
        Whether nothing was found.
    """
    from interlock.core.database import open_database  # noqa: PLC0415 - loads SQLAlchemy, which `--help` need not do
    from interlock.core.revision import require_revision  # noqa: PLC0415
    from interlock.core.verify import Verification  # noqa: PLC0415
    from interlock.core.verify import verify as find  # noqa: PLC0415

    database = open_database(url)
    verification = Verification()
    shown: list[Finding] = []
    try:
        require_revision(database)
        for finding in find(database, verification, run_id):
            if len(shown) < _SHOWN_FINDINGS:
                shown.append(finding)
                if not screen.as_json:
                    place = f" at seq {finding.seq}" if finding.seq is not None else ""
                    screen.line(f"{finding.run_id} {finding.entity}{place}: {finding.text} ({finding.kind})")
    finally:
        database.dispose()
    counts = {
        "runs": verification.runs,
        "steps": verification.steps,
        "rows": verification.rows,
        "without_history": verification.without_history,
        "findings": dict(verification.findings),
    }
    found = verification.findings.total()
    looked = f"{verification.runs:,} runs, {verification.steps:,} steps, {verification.rows:,} rows of history"
    older = f"; {verification.without_history:,} entities without history" if verification.without_history else ""
    document = {**counts, "clean": verification.clean, "first_findings": [asdict(finding) for finding in shown]}
    screen.done(document, f"{looked}: {'clean' if verification.clean else f'{found:,} findings'}{older}")
    return verification.clean


@click.command("explain", cls=Verb, examples=("interlock explain 7d0c2f6e-…",))
@click.argument("run_id")
def explain(options: Options, run_id: str) -> None:
    """Say why a run is not moving, and what to do about it."""
    with connect(options) as client:
        explain_run(client, run_id, Screen.of(options))


@click.command("verify", cls=Verb, examples=("interlock verify", "interlock verify 7d0c2f6e-… --json"))
@click.argument("run_id", required=False)
@click.pass_context
def verify(ctx: click.Context, options: Options, run_id: str | None) -> None:
    """Check the history of a run, or of all runs.

    It is replayed and compared with what is there; the exit code is 1 where they differ.
    """
    if not verify_database(database_url(options), Screen.of(options), run_id):
        ctx.exit(1)
