"""`python -m tests.random_plans`: random plans on real workers, judged by an oracle. `make random-plans SECONDS=… SEED=…` calls it.

Exit code 1 where something is that must not be; then the logs of the workers and the ledgers of the bodies are kept.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys

from tests.chaos.report import Board

from .report import show
from .run import Options, search


def main(arguments: list[str]) -> int:
    """Run it.

    Returns:
        The exit code: 1 where something is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.random_plans", description=__doc__)
    parser.add_argument("--seed", default=None, help="any word: the same seed gives the same plans, fates and people")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long plans are begun")
    parser.add_argument(
        "--plan", type=int, nargs="+", default=(), help="only the plans of these numbers, again and again"
    )
    parser.add_argument("--at-most", type=int, help="how many plans at most")
    parser.add_argument("--in-flight", type=int, default=14, help="how many runs at once")
    given = parser.parse_args(arguments)
    # Ended by somebody, it still ends its servers and workers.
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    options = Options(
        given.seed or secrets.token_hex(4), given.seconds, tuple(given.plan), given.at_most, given.in_flight
    )
    board = Board()
    board.line(options.command())
    summary = search(options, board)
    show(summary, board)
    if summary.sound:
        shutil.rmtree(summary.folder)
    else:
        board.line(f"logs, ledgers and every failing run: {summary.folder}")
    return int(not summary.sound)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
