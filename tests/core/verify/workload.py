"""Runs of every fate, as the engine leaves them: ended, paused, waiting, and two whose steps are held by a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, text

from interlock.core import WorkflowController
from interlock.core.attempts.outcomes import Failure
from interlock.core.database.tables import ControlCommand
from interlock.core.settings import Settings
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from interlock.core import Database

__all__ = ["RUNS", "carry_out", "plant"]

RUNS: Final = 10
_AT_ONCE: Final = {"max_attempts": 3, "initial_delay_s": 0.0}


def _step(key: str, after: str = "", **options: Any) -> dict[str, Any]:
    return {"key": key, "task": f"tasks.{key}", "after": after.split(), **options}


def _gate(key: str) -> dict[str, Any]:
    return {"key": key, "approval": True}


_PLANS: Final[dict[str, dict[str, Any]]] = {
    "completed": {
        "steps": [
            _step("a"),
            _step("flaky", "a", retry=_AT_ONCE),
            _step("unwanted", "a", when="`false`"),
            _step("items", "flaky", map={"over": "input"}),
            _step("last", "items"),
        ]
    },
    "failed": {"steps": [_step("first"), _step("bad", "first"), _step("beside", "first"), _step("behind", "bad")]},
    "approved": {"steps": [_gate("gate"), _step("a", "gate")]},
    "waiting": {"steps": [_gate("gate"), _step("a", "gate")]},
    "paused": {"steps": [_step("a"), _step("behind", "a")]},
    "cancelled": {"steps": [_step("a"), _gate("gate")]},
    "held": {
        "max_parallel": 1,
        "steps": [_step("h"), _step("beside"), _step("behind", "h"), _gate("gate"), _step("last", "behind gate")],
    },
    "mapping": {"steps": [_step("m", map={"over": "input", "max_parallel": 1}), _step("behind", "m")]},
    "draft": {"steps": [_step("a")]},
}


def carry_out(database: Database) -> None:
    """Make the runs in an empty database."""
    with database.session() as session:
        _Workload(WorkflowController(session), WorkerDouble(database, Settings())).carry_out()
        run_id = session.scalar(text("SELECT id FROM workflow_runs WHERE name = 'paused'"))
        command = {"session_id": "default", "id": "pause-1", "command": "pause", "outcome": {"ok": True}}
        session.execute(insert(ControlCommand).values(workflow_id=str(run_id), **command))


def plant(database: Database, statements: list[str]) -> None:
    """Carry statements out past the triggers that would refuse them."""
    with database.engine.begin() as connection:
        if database.dialect == "sqlite":
            names = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all()
            statements = [*(f"DROP TRIGGER {name}" for name in names), *statements]
        else:
            statements = ["ALTER TABLE state_history DISABLE TRIGGER USER", *statements]
        for statement in statements:
            connection.exec_driver_sql(statement)


class _Workload:
    def __init__(self, controller: WorkflowController, worker: WorkerDouble) -> None:
        self._controller = controller
        self._worker = worker

    def carry_out(self) -> None:
        self._completed()
        self._failed()
        self._controller.approve_step(self._enqueue("approved"), "gate")
        self._worker.run_all()
        self._enqueue("waiting")
        for name, verb in (
            ("paused", self._controller.pause_workflow),
            ("cancelled", self._controller.cancel_workflow),
        ):
            run_id = self._enqueue(name)
            self._worker.claim("a")
            verb(run_id)
            self._worker.fail("a", Failure("interrupted", "it was told to stop"))
        self._enqueue("held")
        self._worker.claim("h")
        self._enqueue("mapping", input=[1, 2])
        self._worker.claim("m.0")
        self._enqueue("draft", start_at=datetime.now(UTC) + timedelta(days=1))

    def _enqueue(self, name: str, **options: Any) -> str:
        plan = {"name": name, "task_description": "be verified", **_PLANS[name]}
        return self._controller.enqueue_workflow(plan, **options)

    def _completed(self) -> None:
        self._enqueue("completed", input=[1, 2, 3], idempotency_key="once")
        self._worker.run("a", 3)
        for _ in range(2):
            self._worker.run_failing("flaky")
        self._worker.run_all()

    def _failed(self) -> None:
        failed = self._enqueue("failed")
        self._worker.run("first")
        self._fail()
        self._controller.rerun_workflow(failed)
        self._fail()

    def _fail(self) -> None:
        self._worker.claim("beside")
        self._worker.run_failing("bad")
        self._worker.fail("beside", Failure("interrupted", "it was told to stop"))
