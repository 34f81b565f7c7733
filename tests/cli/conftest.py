"""A command line with a client that only remembers what it was asked, and an app's folder for real servers."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from interlock.cli.dev.server_state import DataFolder, ServerState
from interlock.cli.main import interlock
from interlock.core.errors import RunNotFound
from interlock.core.events import StateChange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUN = "7d0c2f6e-0000-4000-8000-000000000001"
OTHER_RUN = "7d0c2f6e-0000-4000-8000-000000000002"
NOW = datetime.now(UTC)
PLAN = """\
name: order
task_description: Deliver an order
steps:
  - key: pack
    task: shop.pack
"""
MODULE = """\
from interlock import Step, Workflow
order = Workflow("order", "Deliver an order", [Step("pack", "shop.pack")])
"""
STATE = ServerState(1234, "shop:app", "sqlite:///dev.db", "redis://dev/0", "redis://dev/0", "2026-01-01T00:00:00+00:00")


def change(seq: int, to_state: str, step: str | None = None, **fields: Any) -> StateChange:
    """A change of RUN, one second after the one before."""
    defaults: dict[str, Any] = {"from_state": None, "reason": None, "transitioned_by": "engine"}
    return StateChange(
        entity_type="workflow_run" if step is None else "workflow_step",
        entity_id=step or RUN,
        session_id="default",
        workflow_id=RUN,
        seq=seq,
        to_state=to_state,
        step_key=step,
        created_at=NOW + timedelta(seconds=seq),
        history_id=seq,
        **(defaults | fields),
    )


def step_document(key: str, status: str = "pending", **fields: Any) -> dict[str, Any]:
    """A step as `run_status` gives it."""
    blank = dict.fromkeys(("error", "started_at", "completed_at", "claimed_by", "progress"))
    return {"key": key, "status": status, "task": f"shop.{key}", "after": [], "attempt": 0, **blank, **fields}


def run_document(status: str, steps: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    """A run as `run_status` gives it."""
    steps = steps or []
    counts = {state: sum(step["status"] == state for step in steps) for state in {step["status"] for step in steps}}
    return {
        "run_id": RUN,
        "name": "order",
        "session_id": "default",
        "status": status,
        "task_description": "Deliver an order",
        "error": None,
        "created_at": (datetime.now(UTC) - timedelta(minutes=5)).isoformat(),
        "started_at": (datetime.now(UTC) - timedelta(minutes=5)).isoformat(),
        "completed_at": None,
        "seq": 9,
        "pause": None,
        "counts": counts,
        "steps": steps,
        **fields,
    }


def story(end: str = "completed") -> list[StateChange]:
    """A run of one step that fails once."""
    return [
        change(1, "draft"),
        change(2, "executing", from_state="planning"),
        change(3, "running", "pack", attempt=1),
        change(4, "failed", "pack", reason="ValueError: no box", attempt=1),
        change(5, "running", "pack", attempt=2),
        change(6, end, "pack", attempt=2),
        change(7, end, from_state="executing"),
    ]


class FakeClient:
    """Answers with what it was given, and keeps the calls."""

    def __init__(self) -> None:
        self.run = run_document("executing")
        self.changes: list[StateChange] = []
        self.runs: list[dict[str, Any]] = []
        self.results: Any = {}
        self.explanation: dict[str, Any] = {}
        self.error: Exception | None = None
        self.interrupt_watch = False
        self.calls: list[tuple[str, Any]] = []
        self.closed = False

    def _called(self, verb: str, *arguments: Any) -> None:
        self.calls.append((verb, *arguments) if arguments else (verb, None))
        if self.error is not None:
            raise self.error

    def enqueue(self, workflow: Any, document: Any = None, key: str | None = None) -> str:
        self._called("enqueue", workflow.name, document, key)
        return RUN

    def pause(self, run_id: str, step: str | None = None, reason: str | None = None, mode: str = "interrupt") -> None:
        self._called("pause", run_id, step, reason, mode)
        self.run["status"] = "paused"

    def resume(self, run_id: str, step: str | None = None, reason: str | None = None) -> None:
        self._called("resume", run_id, step, reason)

    def cancel(self, run_id: str, reason: str | None = None) -> None:
        self._called("cancel", run_id, reason)
        self.run["status"] = "cancelled"

    def status(self, run_id: str) -> dict[str, Any]:
        if run_id != RUN:
            raise RunNotFound(run_id)
        return self.run

    def result(self, run_id: str, step: str | None = None) -> Any:
        self._called("result", run_id, step)
        return self.results

    def list(self, **filters: Any) -> Any:
        self._called("list", filters)
        return self.runs

    def history(self, run_id: str, after_seq: int = 0) -> Any:
        self.status(run_id)
        return [item for item in self.changes if item.seq > after_seq]

    def watch(self, run_id: str, after_seq: int = 0) -> Iterator[StateChange]:
        yield from self.history(run_id, after_seq)
        if self.interrupt_watch:
            raise KeyboardInterrupt

    def approve(self, run_id: str, step: str, comment: str | None = None) -> None:
        self._called("approve", run_id, step, comment)

    def reject(self, run_id: str, step: str, comment: str | None = None) -> None:
        self._called("reject", run_id, step, comment)
        self.run["status"] = "cancelled"

    def retry(self, run_id: str, step: str, reason: str | None = None) -> None:
        self._called("retry", run_id, step, reason)

    def settle(self, run_id: str, step: str, result: Any, reason: str) -> None:
        self._called("settle", run_id, step, result, reason)

    def rerun(self, run_id: str, reason: str | None = None) -> str:
        self._called("rerun", run_id, reason)
        return OTHER_RUN

    def explain(self, run_id: str) -> dict[str, Any]:
        self._called("explain", run_id)
        return self.explanation

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeClient:
    """Stands in for every connection that a command opens; the environment says nothing, the folder is empty."""
    fake = FakeClient()
    for module in ("connection", "commands.run"):
        monkeypatch.setattr(f"interlock.cli.{module}.open_client", lambda *_: fake)
    for name in [name for name in os.environ if name.startswith(("INTERLOCK_", "CELERY_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture
def cli() -> Callable[..., Result]:
    """Runs `interlock` with the given words."""

    def invoke(*words: str, **options: Any) -> Result:
        return CliRunner().invoke(interlock, list(words), prog_name="interlock", **options)

    return invoke


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def running(data_dir: Path) -> Iterator[DataFolder]:
    """A data folder that is taken, with the addresses of STATE."""
    folder = DataFolder(data_dir)
    folder.acquire()
    folder.publish(STATE)
    yield folder
    folder.release()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `clishop` in the working folder: workflows in one module, the app in another."""
    folder = tmp_path / "clishop"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "workflows.py").write_text(MODULE, encoding="utf-8")
    (folder / "application.py").write_text(
        "from celery import Celery\nshop = Celery('clishop', set_as_current=False)\n", "utf-8"
    )
    (folder / "broken.py").write_text("raise RuntimeError('half installed')\n", encoding="utf-8")
    (tmp_path / "order.yaml").write_text(PLAN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "clishop"]:
        del sys.modules[name]
