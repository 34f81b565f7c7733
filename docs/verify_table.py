"""The table of findings in docs/verify.md, made of `interlock.core.verify.KINDS`."""

from __future__ import annotations

from interlock.core.verify import KINDS

__all__ = ["render"]


def render() -> str:
    """The table as Markdown: each kind of finding, the invariant that it breaks, what it means and what to do."""
    rows = [f"| `{name}` | {kind.invariant} | {kind.meaning} | {kind.remedy} |" for name, kind in KINDS.items()]
    return "\n".join(["| kind | invariant | what is wrong | what to do |", "|---|---|---|---|", *rows, ""])
