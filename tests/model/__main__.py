"""`make model`: searches every plan, prints the table, and what is wrong if anything is."""

from __future__ import annotations

import sys

from .table import HEADER, row, search_all


def main() -> int:
    """Print one line for each plan as soon as it is searched.

    Returns:
        The exit code: 1 where something is wrong.
    """
    print(HEADER)  # noqa: T201 - a command's output
    wrong = []
    states = transitions = 0
    for name, found in search_all():
        print(row(name, found), flush=True)  # noqa: T201 - as above
        states, transitions = states + found.states, transitions + found.transitions
        if found.counterexample is not None:
            wrong.append(f"{name}\n{found.counterexample}")
    print(f"| all | {states:,} | {transitions:,} | |", *wrong, sep="\n\n" if wrong else "")  # noqa: T201 - as above
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
