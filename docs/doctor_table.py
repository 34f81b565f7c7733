"""The table of checks in docs/doctor.md, made of the registry of `interlock doctor`."""

from __future__ import annotations

from interlock.cli.doctor.checks import CHECKS

__all__ = ["render"]


def render() -> str:
    """The table as Markdown: each check, what holds where all is well, why the opposite loses work, and what to do."""
    lines = ["| check | where all is well | otherwise | what to do |", "|---|---|---|---|"]
    for code, check in CHECKS.items():
        cells = (f"`{code}`", check.holds, f"**{check.severity}**: {check.why}", check.remedy)
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines, ""])
