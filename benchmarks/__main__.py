"""`python -m benchmarks full|quick|peers`: measure, write the raw figures, and print or write the report."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from .machine import describe, load_average
from .options import parse
from .peers.environments import PINS, versions
from .report import page, render
from .results import Results
from .site import Site
from .suite import measure, titles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .measuring import Sample
    from .options import Options

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Measure.

    Returns:
        The exit code: 0, whatever the figures are; a machine under load must not fail a build.
    """
    options = parse(arguments)
    signal.signal(signal.SIGTERM, _stop)
    with Site() as site:
        results = Results(options.kind, options.rounds, describe() | _versions(options, site), titles(options))
        for sample in measure(site, options):
            results.samples.append(sample)
            if sample.workload != "flush":
                _show(sample)
        results.machine["load average when it ended"] = load_average()
    path = results.save(options.results)
    report = render(results)
    if options.page is not None:
        options.page.write_text(page(options.results), encoding="utf-8")
        print(f"wrote {options.page.name}")
    print(f"\n{report}\nraw figures: {path.name} in {options.results.name}/")
    return 0


def _stop(signum: int, _frame: object) -> None:
    """Unwind, so that workers and servers are stopped in order: a worker whose broker goes first would wait for it."""
    sys.exit(128 + signum)


def _versions(options: Options, site: Site) -> dict[str, str]:
    """What is compared, and the settings that decide whether a commit is on the disk."""
    settings = ", ".join(f"{name} {value}" for name, value in site.durability().items())
    peers = {peer: versions(peer) for peer in PINS} if options.kind == "peers" else {}
    return {"PostgreSQL": settings, **peers}


def _show(sample: Sample) -> None:
    """Progress, for whoever waits."""
    figures = ", ".join(f"{name} {value:,.2f}" for name, value in sample.figures.items() if name != "steps")
    print(f"{sample.workload:9} {sample.round}  {sample.subject:36} {figures}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
