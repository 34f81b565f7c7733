"""`doctor`: the command, and how what was found is shown: marks for people, words in a pipe, JSON for programs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from interlock.cli.connection import find_record, find_target
from interlock.cli.failures import NoServer
from interlock.cli.options import Options, OptionsCommand
from interlock.cli.output.screen import Screen

from .findings import Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .facts import Facts
    from .findings import Finding

__all__ = ["doctor", "examine"]

_TIMEOUT_S: Final = 3.0
_ORDER: Final = (Severity.ERROR, Severity.WARNING, Severity.OK, Severity.UNKNOWN)
_MARKS: Final = {
    Severity.ERROR: ("✗", "bold red"),
    Severity.WARNING: ("!", "yellow"),
    Severity.UNKNOWN: ("?", "dim"),
    Severity.OK: ("✓", "green"),
}


def examine(facts: Facts) -> list[Finding]:
    """Carry out every check; the worst comes first."""
    from .checks import CHECKS

    found = [finding for check in CHECKS.values() for finding in check.findings(facts)]
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def show(findings: Sequence[Finding], screen: Screen) -> None:
    """Print what was found."""
    counts = {severity: sum(finding.severity is severity for finding in findings) for severity in _ORDER}
    if screen.as_json:
        screen.document(
            {
                "ok": not counts[Severity.ERROR],
                "counts": {severity.value: count for severity, count in counts.items()},
                "findings": [asdict(finding) for finding in findings],
            }
        )
        return
    told = [finding for finding in findings if finding.severity is not Severity.UNKNOWN]
    width = max((len(finding.code) for finding in told), default=0)
    for finding in told:
        _line(finding, screen, width)
    unknown: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        if finding.severity is Severity.UNKNOWN:
            unknown[finding.what].append(finding.code)
    for reason, codes in unknown.items():
        screen.line(
            Text.assemble(_mark(Severity.UNKNOWN, screen), f" not looked at, because {reason}: {', '.join(codes)}")
        )
    screen.line(
        f"{_many(counts[Severity.ERROR], 'error')}, {_many(counts[Severity.WARNING], 'warning')}, "
        f"{counts[Severity.UNKNOWN]} not looked at, {counts[Severity.OK]} ok"
    )


def _line(finding: Finding, screen: Screen, width: int) -> None:
    mark = _mark(finding.severity, screen)
    screen.line(Text.assemble(mark, f" {finding.code:<{width}}  {finding.what}"))
    if finding.why:
        indent = " " * (len(mark[0]) + width + 3)
        screen.line(f"{indent}why: {finding.why}", style="dim" if screen.is_live else None)
        screen.line(f"{indent}do:  {finding.remedy}")


def _mark(severity: Severity, screen: Screen) -> tuple[str, str]:
    return _MARKS[severity] if screen.is_live else (f"{severity.value:<8}", "")


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


@click.command(
    "doctor",
    cls=OptionsCommand,
    answers=True,
    examples=(
        "interlock doctor -A shop.application",
        "interlock doctor -A shop.application --strict --json",
        "interlock doctor --database-url postgresql://interlock@db/interlock --broker-url redis://broker/0",
    ),
)
@click.option("--strict", is_flag=True, help="The exit code is 1 for warnings, too.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.1),
    default=_TIMEOUT_S,
    show_default=True,
    help="How many seconds database, broker, Redis and workers each have to answer.",
)
@click.pass_context
def doctor(ctx: click.Context, options: Options, *, strict: bool, timeout_s: float) -> None:
    """Look for what may lose work in a deployment.

    Each finding says what is so, why that loses work, and what to do. It changes nothing, and a part that is down is a finding.
    The exit code is 0 where there is no error, 1 where there is one, and 2 where nothing could be looked at.
    """
    from .gathering import gather

    target = find_target(options, with_app=True) or find_record(options)
    if target is None:
        message = "doctor of what? Name the app with -A module:app, or give --database-url and --broker-url"
        raise NoServer(message)
    findings = examine(gather(target, options.session_id, timeout_s))
    show(findings, Screen.of(options))
    bad = (Severity.ERROR, Severity.WARNING) if strict else (Severity.ERROR,)
    if any(finding.severity in bad for finding in findings):
        ctx.exit(1)
