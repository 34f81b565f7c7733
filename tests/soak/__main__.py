"""`python -m tests.soak`: does a worker grow over many steps, and does anything stay open over many restarts of the broker?

`make soak STEPS=… RESTARTS=…` calls it. Exit code 1 where it does.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.results import keep_result

from .connections import restart_broker
from .memory import WIDTH, grow
from .site import ADVISED, FLAT, soaking

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .measuring import Held

_WARM_UP = 0.1
_WARM_UP_RESTARTS = 5
_PIPE_WIDTH = 160


def main(arguments: list[str]) -> int:
    """Run both, print both tables.

    Returns:
        The exit code: 1 where something grew.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--gossip", action="store_true", help="start the worker with Celery's gossip and mingle")
    given = parser.parse_args(arguments)
    command = f"make soak STEPS={given.steps} RESTARTS={given.restarts}{' GOSSIP=1' if given.gossip else ''}"
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, markup=False, emoji=False, width=None if terminal else _PIPE_WIDTH)
    console.print(command)
    flat = not given.steps or _memory(console, command, given.steps)
    closed = not given.restarts or _connections(console, command, given.restarts, () if given.gossip else ADVISED)
    return int(not (flat and closed))


def _memory(console: Console, command: str, steps: int) -> bool:
    began = time.monotonic()

    def say(done: int, sizes: Mapping[str, int]) -> None:
        text = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
        console.print(f"{time.monotonic() - began:6.0f} s  {done:6} steps: {text}", soft_wrap=True)

    with soaking() as deployment:
        # A message is not sent again because the machine is busy: what a lost one costs is no matter of memory.
        worker = deployment.worker("soaked", concurrency=2, INTERLOCK_REDISPATCH_S="30", INTERLOCK_LEASE_S="30")
        # Whole workflows; what is imported, prepared and cached by the first steps is there for good.
        steps = -(-steps // WIDTH) * WIDTH
        growth = grow(deployment, worker, steps=steps, warm_up=int(steps * _WARM_UP), say=say)
        deployment.stop_workers()
    took_s = time.monotonic() - began
    table = Table("memory of", title=f"{steps} steps in {took_s:.0f} s", title_justify="left")
    for title in ("after warm-up", "least", "most", "furthest off", "per 1,000 steps"):
        table.add_column(title, justify="right")
    for name, each in growth.items():
        sizes = (f"{size:.1f} MB" for size in (each.first_mb, each.least_mb, each.most_mb))
        table.add_row(name, *sizes, f"{each.spread:.1%}", f"{each.slope_kb:+.1f} kB")
    console.print(table)
    flat = all(each.spread <= FLAT for each in growth.values())
    console.print(f"{'flat' if flat else 'NOT FLAT'}: within {FLAT:.0%} of the size after warm-up")
    sizes = {name: asdict(each) | {"spread": each.spread} for name, each in growth.items()}
    keep_result("memory", {"command": command, "steps": steps, "seconds": round(took_s), "flat": flat, "growth": sizes})
    return flat


def _connections(console: Console, command: str, restarts: int, options: Sequence[str]) -> bool:
    began = time.monotonic()

    def say(number: int) -> None:
        console.print(f"{time.monotonic() - began:6.0f} s  {number} restarts of the broker", soft_wrap=True)

    with soaking() as deployment, deployment.remote_client() as remote:
        worker = deployment.worker("soaked", concurrency=2, args=options)
        before, after = restart_broker(deployment, worker, remote, times=restarts, warm_up=_WARM_UP_RESTARTS, say=say)
        deployment.stop_workers()
    return _compare(console, command, restarts, before, after)


def _compare(console: Console, command: str, restarts: int, before: Held, after: Held) -> bool:
    table = Table("open", title=f"{restarts} restarts of the broker", title_justify="left")
    for title in ("before", "after"):
        table.add_column(title, justify="right")
    rows = before.rows()
    for name, count in after.rows().items():
        table.add_row(name, str(rows[name]), str(count))
    console.print(table)
    grown = after.more_than(before)
    console.print("nothing is open that was not" if not grown else f"MORE OPEN THAN BEFORE: {', '.join(grown)}")
    figures = {"command": command, "restarts": restarts, "closed": not grown, "before": rows, "after": after.rows()}
    keep_result("connections", figures)
    return not grown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
