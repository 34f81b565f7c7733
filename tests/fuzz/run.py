"""Fuzzes one target, guided by its coverage, for some seconds: `python -m tests.fuzz.run control 60 CORPUS`.

libFuzzer, by Atheris, feeds the target inputs that reach new branches. It ends with exit code 0, or with the input that broke a
promise: in a file beside the corpus, its traceback on standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["interlock"]):
    from tests.fuzz.targets import SEEDS, TARGETS

_WORDS = Path(__file__).with_name("words")
_LONGEST = 4096
_MEMORY_MB = 1500
_TIMEOUT_S = 30  # of the clock, on a machine that does other things as well; targets measure their own CPU


def main(name: str, seconds: str, corpus: str) -> None:
    """Fuzz; does not return."""
    folder = Path(corpus) / name
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": seconds,
        "max_len": _LONGEST,
        "rss_limit_mb": _MEMORY_MB,
        "timeout": _TIMEOUT_S,
        "dict": _WORDS / f"{name}.dict",
        "artifact_prefix": f"{Path(corpus) / name}-",
        "print_final_stats": 1,
    }
    flags = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], str(folder), str(SEEDS / name), *flags], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
