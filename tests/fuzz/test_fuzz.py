"""The seeds, found inputs among them, keep every promise; and a short search from them finds nothing new."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.targets import SEEDS, TARGETS
from tests.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_INPUTS = [(name, path) for name in TARGETS for path in sorted((SEEDS / name).iterdir())]


@pytest.mark.parametrize(("name", "path"), _INPUTS, ids=[f"{name}-{path.name}" for name, path in _INPUTS])
def test_a_seed_keeps_every_promise(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


def test_each_target_has_seeds_and_words() -> None:
    assert {name for name, _ in _INPUTS} == set(TARGETS)
    assert {path.stem for path in (SEEDS.parent / "words").iterdir()} == set(TARGETS)


@pytest.mark.faults
@pytest.mark.integration
def test_a_short_search_finds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="pip install --group fuzz")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--minutes", "0.34", "--corpus", tmp_path],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{name}: " in done.stdout for name in TARGETS)
