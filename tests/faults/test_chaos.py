"""`make chaos`, short, with a fixed seed: every kind of fault at least once, under load, and then every check."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.schedule import Kind
from tests.servers import ROOT

pytestmark = [pytest.mark.faults, pytest.mark.integration, pytest.mark.timeout(600)]

_AT_MOST_S = 570  # a busy machine needs a multiple of the minute
_OPTIONS = ("--seed", "suite", "--minutes", "1", "--workflows", "60", "--every", "4")


def test_a_minute_of_random_kills_loses_nothing_and_does_nothing_twice() -> None:
    """As a person would run it: its output in a pipe, its exit code as the verdict."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *_OPTIONS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=_AT_MOST_S,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    lines = done.stdout.splitlines()
    assert lines[0] == "make chaos SEED=suite MINUTES=1 WORKFLOWS=60"
    assert lines[-1] == f"nothing lost, nothing done twice; again: {lines[0]}" or lines[-2].endswith(lines[0])
    assert not [kind for kind in Kind if f"│ {kind}" not in done.stdout]
    assert any(line.startswith("workflows: 60 (") for line in lines)
