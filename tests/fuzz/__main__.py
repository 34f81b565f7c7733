"""`make fuzz MINUTES=5`: every target for its share of the time, then how much of the parsers the inputs have reached.

What was found before is kept in `.fuzz/` and is where the next run begins. The exit code is 1 if a promise was broken; the input
that broke it is named, and belongs among the seeds once it is understood.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import coverage

ROOT: Final = Path(__file__).resolve().parents[2]
TARGETS: Final = ("control", "workflow", "guards")
PARSERS: Final = (
    "signals/control/admission.py",
    "signals/control/command.py",
    "signals/control/fields.py",
    "signals/control/signing.py",
    "signals/events/cloud_event.py",
    "client/authoring/yaml_file.py",
    "core/yaml_documents.py",
    "core/machine/guard_rules_file.py",
    "core/plan/validation.py",
)
_DONE: Final = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)/\S+ .*?exec/s: (\d+)")


def fuzz(name: str, seconds: int, corpus: Path) -> bool:
    """Fuzz one target in a process of its own; whether nothing was found."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", name, str(seconds), str(corpus)],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        cwd=ROOT,
    )
    found = _DONE.search(done.stderr)
    if done.returncode or found is None:
        sys.stdout.write(f"{name}: FOUND something (exit code {done.returncode})\n{done.stderr[-6000:]}\n")
        return False
    runs, edges, features, inputs, rate = found.groups()
    sys.stdout.write(
        f"{name}: {int(runs):,} inputs in {seconds} s, {rate} a second; {edges} edges, {features} features, {inputs} kept\n"
    )
    sys.stdout.flush()
    return True


def report_reach(corpus: Path) -> None:
    """Replay everything that is kept, and print how much of each parser it reaches."""
    measured = coverage.Coverage(
        data_file=None, config_file=False, branch=True, include=[str(ROOT / parser) for parser in PARSERS]
    )
    measured.start()
    from tests.fuzz import targets  # noqa: PLC0415 - measured from the import on

    for name, call in targets.TARGETS.items():
        for path in [*(targets.SEEDS / name).iterdir(), *(corpus / name).iterdir()]:
            call(path.read_bytes())
    measured.stop()
    measured.report(file=sys.stdout)


def main() -> int:
    """Fuzz every target, and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="for all targets together")
    parser.add_argument("--corpus", type=Path, default=ROOT / ".fuzz", help="where what was found is kept")
    given = parser.parse_args()
    seconds = max(1, round(given.minutes * 60 / len(TARGETS)))
    clean = [fuzz(name, seconds, given.corpus) for name in TARGETS]
    if not all(clean):
        return 1
    report_reach(given.corpus)
    return 0


if __name__ == "__main__":
    sys.exit(main())
