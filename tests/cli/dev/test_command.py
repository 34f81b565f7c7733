"""`interlock dev` and `interlock run` as a user runs them: processes, a data folder, signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import psutil
import pytest

from tests.processes import bound
from tests.servers import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

APP = "tests.cli.shop_app:app"
READY_S = 60.0
END_S = 40.0


def _environment(data_dir: Path) -> dict[str, str]:
    foreign = ("INTERLOCK_", "CELERY_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    times = {"INTERLOCK_LEASE_S": "2", "INTERLOCK_HEARTBEAT_S": "0.5", "INTERLOCK_SWEEP_S": "0.3"}
    return clean | times | {"INTERLOCK_DATA": str(data_dir), "PYTHONPATH": str(ROOT)}


def interlock(data_dir: Path, *words: str, module: str = "interlock.cli.main") -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(
        command, cwd=ROOT, env=_environment(data_dir), capture_output=True, text=True, timeout=READY_S, check=False
    )


def said(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON document that a command printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Dev:
    """`interlock dev --json` as a process, ready."""

    def __init__(self, data_dir: Path, *words: str) -> None:
        self.data_dir = data_dir
        command = [
            sys.executable,
            "-m",
            "interlock.cli.main",
            "--json",
            "dev",
            "-A",
            APP,
            "--concurrency",
            "2",
            "--queues",
            "rare",
            *words,
        ]
        self._log = (data_dir.parent / "dev.log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            bound(command, signal.SIGTERM),
            cwd=ROOT,
            env=_environment(data_dir),
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        self._children: dict[int, psutil.Process] = {}

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        self.ready = json.loads(line)
        self.children()
        return self

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def children(self) -> list[psutil.Process]:
        """Every process that it was ever seen to have, at any depth."""
        if self.process.poll() is None:
            found = psutil.Process(self.process.pid).children(recursive=True)
            self._children |= {child.pid: child for child in found}
        return list(self._children.values())

    def worker(self) -> psutil.Process | None:
        """The worker's MAIN process: what its watchdog runs."""
        for child in self.children():
            with contextlib.suppress(psutil.Error):  # it has ended
                words = child.cmdline()
                if "celery" in words and any(word.endswith("watchdog.py") for word in words):
                    return next(iter(child.children()), None)
        return None

    def send(self, signum: signal.Signals) -> None:
        self.children()
        self.process.send_signal(signum)

    def wait(self) -> int:
        return self.process.wait(END_S)

    def none_is_left(self) -> bool:
        return not any(
            child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in self._children.values()
        )

    def __exit__(self, *exc_info: object) -> None:
        self.children()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for child in self._children.values():
            if child.is_running():
                child.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def dev(data_dir: Path) -> Iterator[Dev]:
    """One of the test's own, to be ended."""
    with Dev(data_dir) as running:
        yield running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One that is there before each of the tests that use it, and after."""
    with Dev(tmp_path_factory.mktemp("shared") / "data") as running:
        yield running


def test_a_second_terminal_runs_looks_and_cancels(shared: Dev, tmp_path: Path) -> None:
    """No address is typed: the folder tells. The app's own broker, which does not exist, is never asked."""
    data_dir = shared.data_dir
    assert shared.ready["app"] == APP
    finished = said(interlock(data_dir, "--json", "run", "tests.cli.shop_app:order", "--input", '{"n": 4}'))
    assert finished["status"] == "completed"
    run_id = finished["run_id"]
    assert said(interlock(data_dir, "--json", "result", run_id, "second")) in (7, {"second": 7})
    lines = interlock(data_dir, "watch", run_id).stdout.splitlines()
    assert "✓ completed" in lines[-1]
    history = said(interlock(data_dir, "--json", "history", run_id))
    assert [row["seq"] for row in history] == list(range(1, len(lines) + 1))

    gate = tmp_path / "gate"
    words = ("run", "tests.cli.shop_app:waiting", "--input", json.dumps({"path": str(gate)}), "--detach")
    waiting = interlock(data_dir, *words).stdout.strip()
    assert said(interlock(data_dir, "--json", "cancel", waiting, "--reason", "enough"))["status"] == "cancelled"
    gate.touch()
    again = interlock(data_dir, "pause", waiting)
    assert again.returncode == 1
    assert again.stderr.startswith("Error: ")
    runs = {run["run_id"]: run["status"] for run in said(interlock(data_dir, "--json", "list"))}
    assert (runs[run_id], runs[waiting]) == ("completed", "cancelled")
    celery = interlock(data_dir, "-A", APP, "workflow", "--data", str(data_dir), "status", run_id, module="celery")
    assert "✓ completed" in celery.stdout, celery.stderr


def test_a_second_server_in_the_same_folder_is_refused(shared: Dev) -> None:
    done = interlock(shared.data_dir, "dev", "-A", APP)
    assert done.returncode == 1
    assert f"pid {shared.process.pid}" in done.stderr


@pytest.mark.parametrize(
    "signum",
    [signal.SIGINT, *(pytest.param(signum, marks=pytest.mark.long) for signum in (signal.SIGTERM, signal.SIGHUP))],
)
def test_a_signal_stops_it_with_all_that_it_started(dev: Dev, data_dir: Path, signum: signal.Signals) -> None:
    children = {" ".join(child.cmdline()) for child in dev.children()}
    assert any("redis" in words for words in children)
    assert any("celery" in words for words in children)
    dev.send(signum)
    assert dev.wait() == 0
    wait_until(dev.none_is_left, END_S, "every child has ended")
    assert not (data_dir / "server.json").exists()


def test_killed_it_leaves_no_child_and_the_run_goes_on_next_time(dev: Dev, data_dir: Path, tmp_path: Path) -> None:
    """SIGKILL, while a step runs that would not end by itself."""
    gate = tmp_path / "gate"
    words = ("run", "tests.cli.shop_app:waiting", "--input", json.dumps({"path": str(gate)}), "--detach")
    run_id = interlock(data_dir, *words).stdout.strip()
    wait_until(
        lambda: said(interlock(data_dir, "--json", "status", run_id))["counts"] == {"running": 1},
        READY_S,
        "the step runs",
    )
    dev.send(signal.SIGKILL)
    dev.wait()
    wait_until(dev.none_is_left, END_S, "every child has ended")
    assert said(interlock(data_dir, "--json", "status", run_id))["status"] == "executing"
    gate.touch()
    with Dev(data_dir):
        watched = interlock(data_dir, "watch", run_id)
        assert watched.returncode == 0, watched.stdout + watched.stderr


def test_a_worker_that_dies_is_started_again(shared: Dev) -> None:
    first = shared.worker()
    assert first is not None
    first.kill()
    wait_until(lambda: shared.worker() not in (None, first), READY_S, "there is another worker")
    done = interlock(shared.data_dir, "run", "tests.cli.shop_app:order", "--input", '{"n": 1}')
    assert done.returncode == 0, done.stderr


def test_without_a_server_run_starts_one_for_itself(data_dir: Path) -> None:
    """Steps in a queue that the app does not declare are executed, too."""
    done = interlock(data_dir, "run", "tests.cli.shop_app:order", "--input", '{"n": 4}')
    assert done.returncode == 0, done.stderr
    assert "starting one there for this run" in done.stderr
    (run,) = said(interlock(data_dir, "--json", "list"))
    assert run["status"] == "completed"


def test_run_fails_with_the_error_of_the_step(shared: Dev) -> None:
    done = interlock(shared.data_dir, "run", "tests.cli.shop_app:broken")
    assert done.returncode == 1
    assert "refuse: ValueError: no such item: 17" in done.stdout


def test_an_app_that_is_not_there_is_one_line(data_dir: Path) -> None:
    done = interlock(data_dir, "dev", "-A", "gone.app")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: -A gone.app: no module named 'gone'")
    assert len(done.stderr.splitlines()) == 1


def test_the_database_is_migrated_by_a_command(data_dir: Path, sqlite_url: str) -> None:
    url = ("--database-url", sqlite_url)
    refused = interlock(data_dir, *url, "db", "check")
    assert refused.returncode == 1
    assert "interlock db upgrade" in refused.stderr
    revision = said(interlock(data_dir, *url, "--json", "db", "upgrade"))["revision"]
    assert interlock(data_dir, *url, "db", "current").stdout.strip() == revision
    assert interlock(data_dir, *url, "db", "check").returncode == 0
