"""mypy says of code that uses the public names what typing_tests/ announces: nothing, or the errors of planted mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict

import pytest

from tests.servers import ROOT

pytestmark = pytest.mark.integration

FILES = sorted((ROOT / "typing_tests").glob("*.py"))
ANNOUNCED = re.compile(r"# E: (.+)$")
SAID = re.compile(r"^typing_tests/([\w.]+):(\d+): error: .+  \[([\w-]+)\]$", re.MULTILINE)


@pytest.fixture(scope="module")
def said() -> dict[str, set[tuple[int, str]]]:
    """File → line and code of each error."""
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "typing_tests"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for name, line, code in SAID.findall(done.stdout):
        found[name].add((int(line), code))
    assert found, done.stdout + done.stderr  # the mistakes at the least
    return found


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_mypy_finds_what_is_announced_and_nothing_else(said: dict[str, set[tuple[int, str]]], name: str) -> None:
    lines = (ROOT / "typing_tests" / name).read_text(encoding="utf-8").splitlines()
    announced = {
        (number, code)
        for number, line in enumerate(lines, 1)
        if (found := ANNOUNCED.search(line))
        for code in found[1].split(", ")
    }
    assert said[name] == announced
