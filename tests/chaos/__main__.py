"""`python -m tests.chaos`: a load, random faults, and then every check there is. `make chaos SEED=… MINUTES=…` calls it.

Exit code 1 where a promise was broken; what is needed to look into it is kept then, and its place is printed.
"""

from __future__ import annotations

import argparse
import secrets
import sys

from .report import Board
from .run import Options, run


def main(arguments: list[str]) -> int:
    """Run it.

    Returns:
        The exit code: 1 where something was lost, done twice or stranded.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", default=None, help="any word: the same seed gives the same load and faults")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long faults are injected")
    parser.add_argument("--workflows", type=int, help="workflows of ten steps; 67 a minute if not given")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--every", type=float, default=4.0, help="seconds from one fault to the next, on average")
    given = parser.parse_args(arguments)
    options = Options(
        seed=given.seed or secrets.token_hex(4),
        minutes=given.minutes,
        workflows=given.workflows or max(1, round(given.minutes * 1000 / 15)),
        workers=given.workers,
        every_s=given.every,
    )
    summary = run(options, Board())
    summary.keep()
    return int(bool(summary.violations))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
