"""The demo: an embedded server, the audit with its progress on the screen, its history, the report.

`python -m examples.stdlib_audit [--out FILE]` exits with 0 only if the workflow completed and the
report is there.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .workflow import DEFAULT_OUT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HEAD = 6
TAIL = 4
"""Rows of the history that are shown."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo.

    Returns:
        The exit code: 0 if the workflow completed and wrote the report, 1 otherwise.
    """
    out = _parser().parse_args(arguments).out.resolve()
    out.unlink(missing_ok=True)  # an older report must not be taken for this run's
    from .embedded import run_embedded  # noqa: PLC0415 - --help needs no server

    status, history = run_embedded(str(out))
    print("\nHistory")
    print("\n".join(history_lines(history)))
    if status != "completed" or not out.is_file():
        print(f"\nThe workflow ended {status} and left no complete report.", file=sys.stderr)
        return 1
    print(f"\nReport: {out} ({out.stat().st_size / 1024:.0f} KiB)\n        {out.as_uri()}")
    return 0


def history_lines(history: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields the first and the last rows, and how many moves led to each state.

    Args:
        history: In order of `seq`; of each row `seq`, `step` (None for the workflow's own),
            `from_state` (None on the first), `to_state` and `reason` are shown.
    """
    yield from map(_history_line, history[:HEAD])
    if len(history) > HEAD + TAIL:
        yield f"  … {len(history) - HEAD - TAIL:,} more"
    yield from map(_history_line, history[max(HEAD, len(history) - TAIL) :])
    for label, rows in (
        ("workflow", [row for row in history if row["step"] is None]),
        ("steps", [row for row in history if row["step"] is not None]),
    ):
        counts = Counter(str(row["to_state"]) for row in rows)
        states = ", ".join(f"{count:,} {state}" for state, count in counts.items())
        yield f"  {len(rows):,} rows of {label}: {states or 'none'}"


def _history_line(row: Mapping[str, Any]) -> str:
    before = f"{row['from_state']} → " if row["from_state"] else ""
    reason = f"  ({row['reason']})" if row.get("reason") else ""
    return f"  {row['seq']:>4}  {row['step'] or 'workflow':<14} {before}{row['to_state']}{reason}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.stdlib_audit",
        description="Audit Python's own standard library by an Interlock workflow.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(DEFAULT_OUT),
        help="the report's file (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
