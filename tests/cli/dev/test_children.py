"""Processes that must not outlive the one that started them."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from interlock.cli.dev.children import Child
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration


STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def stubborn(tmp_path: Path, lines: list[str]) -> Iterator[Child]:
    """A child that does not care about SIGTERM."""
    child = Child(
        "stubborn",
        [sys.executable, "-c", STUBBORN],
        log=tmp_path / "child.log",
        stop_signal=signal.SIGTERM,
        grace_s=0.3,
        on_line=lambda _name, line: lines.append(line),
    )
    child.start()
    wait_until(lambda: lines, 10, "it says something")
    yield child
    child.kill()


def test_a_child_that_will_not_end_is_killed_after_its_grace(stubborn: Child, tmp_path: Path) -> None:
    assert stubborn.running
    stubborn.stop()
    stubborn.stop()
    assert stubborn.exit_code == 256 - signal.SIGKILL
    assert (tmp_path / "child.log").read_text() == "up\n"


def test_a_child_is_killed_at_once_when_asked(stubborn: Child) -> None:
    stubborn.kill()
    assert not stubborn.running


def test_a_child_ends_with_its_watchdog(stubborn: Child) -> None:
    """Even where the watchdog itself is killed (Linux)."""
    (watchdog,) = [child for child in psutil.Process().children() if "watchdog.py" in " ".join(child.cmdline())]
    (body,) = watchdog.children()
    watchdog.kill()
    psutil.wait_procs([body], timeout=10)
    assert not body.is_running()
    wait_until(lambda: not stubborn.running, 10, "its end is noticed")
