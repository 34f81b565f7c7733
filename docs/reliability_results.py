"""`python -m docs.reliability_results FILE…`: takes over results of real runs into docs/reliability_results.jsonl.

`make faults`, `make chaos` and `make soak` write such files, one result a line. The faults of one run of the suite replace those
of the run before; another run of chaos or soak replaces the one with the same command line. `docs.generate` renders them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["PATH", "main", "merged", "read"]

PATH: Final = Path(__file__).with_name("reliability_results.jsonl")

Result = dict[str, Any]


def read(path: Path) -> list[Result]:
    """The results in a file; none where it is not there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def merged(stored: Iterable[Result], new: Sequence[Result]) -> list[Result]:
    """What is known after `new` has come: faults first, as they were reported, then the others by command line."""
    faults = [each for each in new if "fault" in each] or [each for each in stored if "fault" in each]
    others = {(each["kind"], each["command"]): each for each in (*stored, *new) if "fault" not in each}
    return [*faults, *(others[key] for key in sorted(others))]


def main(arguments: Sequence[str]) -> int:
    """Take the files over.

    Returns:
        The exit code: 1 where there is nothing to take over.
    """
    new = [result for argument in arguments for result in read(Path(argument))]
    if not new:
        print("no results: run `make faults`, `make chaos` or `make soak` first", file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    lines = (json.dumps(result, sort_keys=True) + "\n" for result in merged(read(PATH), new))
    PATH.write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
