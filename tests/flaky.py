"""A pytest plugin for continuous integration: a test that fails is run again at once, three times, and one such test is forgiven.

It is run again where it failed: in the same process, with the same module's fixtures, while the other processes are busy with
other tests. Where it passes all three times the run stays green, and its name goes into `tests/flaky.txt`, by the hand of the
next one who commits. A name that is there already is red, as is a second one in the same run, and whatever fails in a suite whose
failures are found by chance: those are findings.

Options: `--rerun-failed=PATH`, a file that one run's pytest commands share; `--times=N` runs every test N times, and `--busy`
keeps every core busy meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

__all__ = ["NEVER_AGAIN", "known_names", "pytest_addoption", "pytest_configure", "pytest_generate_tests"]

TIMES: Final = 3
NEVER_AGAIN: Final = ("races", "faults", "model", "isolation")
"""Folders of tests, and marks, that are never run again."""

_KNOWN: Final = Path(__file__).with_name("flaky.txt")
_PASSED_AGAIN: Final = "passed_again"


def known_names(path: Path = _KNOWN) -> set[str]:
    """The names in a file, without its comments."""
    if not path.exists():
        return set()
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line and not line.startswith("#")}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("flaky")
    group.addoption("--rerun-failed", type=Path, metavar="PATH", help="run failed tests again; PATH: names of this run")
    group.addoption("--known-flaky", type=Path, default=_KNOWN, metavar="PATH", help="names that are not forgiven")
    group.addoption("--busy", action="store_true", help="keep every core busy")
    group.addoption("--times", type=int, default=1, metavar="N", help="run every test N times")


def pytest_configure(config: pytest.Config) -> None:
    """Look after failed tests, or make the machine busy, where it is asked for."""
    if config.getoption("busy"):
        for _ in range(os.cpu_count() or 1):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            config.add_cleanup(busy.wait)
            config.add_cleanup(busy.kill)
    if path := config.getoption("rerun_failed"):
        config.pluginmanager.register(_Again(path, known_names(config.getoption("known_flaky")), config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make N tests of one."""
    if (times := metafunc.config.getoption("times")) > 1:
        metafunc.fixturenames.append("_time")
        metafunc.parametrize("_time", range(times))


class _Again:
    """Runs again in the processes that run tests, and forgives in the one that reports."""

    def __init__(self, path: Path, known: set[str], config: pytest.Config) -> None:
        self._path = path
        self._known = known
        self._reports = not hasattr(config, "workerinput")
        self._forgiven: dict[str, str] = {}

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """Run it, and once more and again where it failed; the first reports are the ones that are told."""
        if item.nodeid in self._known or _is_never_run_again(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        if _failed(reports) and not any(
            _failed(runtestprotocol(item, log=False, nextitem=nextitem)) for _ in range(TIMES)
        ):
            for report in reports:
                report.user_properties.append((_PASSED_AGAIN, TIMES))
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # before anybody counts
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None]:
        """Forgive the first that passed again."""
        again = _PASSED_AGAIN in {name for name, _ in report.user_properties}
        if self._reports and report.failed and again and self._forgive(report.nodeid):
            self._forgiven[report.nodeid] = report.longreprtext
            report.outcome, report.longrepr = "passed", None
            report.flaky = True  # type: ignore[attr-defined] # reports carry what plugins add
        return (yield)

    def _forgive(self, name: str) -> bool:
        told = known_names(self._path)
        if not told:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(f"{name}\n", encoding="utf-8")
        return told <= {name}

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """Count it apart in the closing line."""
        return ("flaky", "K", ("FLAKY", {"yellow": True})) if getattr(report, "flaky", False) else None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show how it failed, and what to write down."""
        for name, how in self._forgiven.items():
            terminalreporter.section("FLAKY")
            terminalreporter.line(how)
            terminalreporter.line(f"It passed {TIMES} times after that. Add this line to tests/flaky.txt:")
            terminalreporter.line(name)


def _failed(reports: Iterable[pytest.TestReport]) -> bool:
    return any(report.failed for report in reports)


def _is_never_run_again(item: pytest.Item) -> bool:
    folders = item.nodeid.partition("::")[0].split("/")
    return any(name in folders or item.get_closest_marker(name) for name in NEVER_AGAIN)
