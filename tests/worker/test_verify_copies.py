"""`verify` on the database that a real worker has left: clean as it is, and it finds every corruption planted in a copy."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from interlock.core import open_database
from interlock.core.verify import KINDS, Verification, verify
from tests.servers import name_of
from tests.worker.corruptions import CORRUPTIONS
from tests.worker.deployment import CALM, DEADLINE_S, Deployment, task_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from interlock.core import Database
    from tests.servers import PostgresDatabases, RedisServer

    Copies = Callable[[], AbstractContextManager[Database]]


pytestmark = pytest.mark.long


def _step(key: str, task: str, *args: object, after: str = "", **options: Any) -> dict[str, Any]:
    return {"key": key, "task": task_name(task), "args": list(args), "after": after.split(), **options}


def _gate(key: str, after: str = "") -> dict[str, Any]:
    return {"key": key, "approval": True, "after": after.split()}


def _hold(key: str, **options: Any) -> dict[str, Any]:
    return _step(key, "hold", "never", **options)


PLANS: dict[str, dict[str, Any]] = {
    "completed": {
        "steps": [
            _step("a", "add", 1, 2),
            _step("flaky", "flaky", 2, after="a"),
            _step("unwanted", "echo", after="a", when="`false`"),
            _step("items", "echo", {"$expr": "item"}, after="flaky", map={"over": "input"}),
            _step("last", "total", {"$expr": "results.items"}, after="items"),
        ]
    },
    "failed": {
        "steps": [
            _step("first", "add", 1, 2),
            _step("bad", "fail", "no", after="first"),
            _hold("beside", after="first"),
            _step("behind", "echo", after="bad"),
        ]
    },
    "approved": {"steps": [_gate("gate"), _step("a", "echo", "yes", after="gate")]},
    "waiting": {"steps": [_gate("gate"), _step("a", "echo", after="gate")]},
    "paused": {"steps": [_hold("a"), _step("behind", "echo", after="a")]},
    "cancelled": {"steps": [_hold("a"), _gate("gate")]},
    "held": {
        "max_parallel": 1,
        "steps": [
            _hold("h"),
            _step("beside", "echo"),
            _step("behind", "echo", after="h"),
            _gate("gate"),
            _step("last", "echo", after="behind gate"),
        ],
    },
    "mapping": {
        "steps": [
            _hold("m", map={"over": "input", "max_parallel": 1}),
            _step("behind", "echo", after="m"),
        ]
    },
    "draft": {"steps": [_step("a", "echo")]},
}


class _Workload:
    """Runs of every fate; at the end two steps are held by a worker that is killed."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._client = deployment.client

    def carry_out(self) -> None:
        worker = self._deployment.worker("one", concurrency=2)
        self._ended()
        self._interrupted()
        self._enqueue("draft", start_at=datetime.now(UTC) + timedelta(days=1))
        self._wait("waiting", "waiting_approval")
        held, mapping = self._enqueue("held"), self._enqueue("mapping", input=[1, 2])
        self._deployment.begun(held, ("h",))
        self._deployment.begun(mapping, ("m.0",))
        worker.kill()

    def _enqueue(self, name: str, **options: Any) -> str:
        plan = {"name": name, "task_description": "be verified", **PLANS[name]}
        return self._client.enqueue(plan, **options)

    def _wait(self, name: str, status: str, **options: Any) -> str:
        run_id = self._enqueue(name, **options)
        self._deployment.wait_for_status(run_id, status)
        return run_id

    def _ended(self) -> None:
        self._wait("completed", "completed", input=[1, 2, 3], idempotency_key="once")
        failed = self._wait("failed", "failed")
        again = self._client.rerun(failed)
        self._deployment.wait_for_status(again, "failed")
        approved = self._wait("approved", "waiting_approval")
        self._client.approve(approved, "gate")
        self._deployment.wait_for_status(approved, "completed")

    def _interrupted(self) -> None:
        paused, cancelled = self._enqueue("paused"), self._enqueue("cancelled")
        steps = {run_id: self._deployment.begun(run_id)["a"] for run_id in (paused, cancelled)}
        with self._deployment.remote_client() as remote:
            remote.pause(paused)
            remote.cancel(cancelled)
        for step_id in steps.values():
            self._deployment.ledger.wait_for(step_id, "stopped by StepInterrupted")


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    database = open_database(url)
    try:
        yield database
    finally:
        database.dispose()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def copies(
    request: pytest.FixtureRequest,
    worker_redis: tuple[RedisServer, RedisServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Copies]:
    """Makes a copy of the database as the workload has left it."""
    folder: Path = tmp_path_factory.mktemp("workload")
    if request.param == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        original = folder / "original.db"
        _copy_file(template, original)
        _work(worker_redis, f"sqlite:///{original}", folder)
        yield lambda: _sqlite_copy(original, folder)
        return
    databases: PostgresDatabases = request.getfixturevalue("postgres_databases")
    with databases.fresh(request.getfixturevalue("postgres_template")) as url:
        _work(worker_redis, url, folder)
        yield lambda: _postgres_copy(databases, url)


def _work(servers: tuple[RedisServer, RedisServer], url: str, folder: Path) -> None:
    with Deployment(*servers, url, folder, settings=CALM, answer_s=DEADLINE_S) as deployment:
        _Workload(deployment).carry_out()


def _copy_file(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)


@contextmanager
def _sqlite_copy(original: Path, folder: Path) -> Iterator[Database]:
    path = folder / f"{uuid4().hex}.db"
    _copy_file(original, path)
    with _opened(f"sqlite:///{path}") as database:
        yield database
    path.unlink()


@contextmanager
def _postgres_copy(databases: PostgresDatabases, original: str) -> Iterator[Database]:
    with databases.fresh(name_of(original)) as url, _opened(url) as database:
        yield database


def _plant(database: Database, statements: list[str]) -> None:
    with database.engine.begin() as connection:
        if database.dialect == "sqlite":
            names = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all()
            statements = [*(f"DROP TRIGGER {name}" for name in names), *statements]
        else:
            statements = ["ALTER TABLE state_history DISABLE TRIGGER USER", *statements]
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_what_a_killed_worker_leaves_is_clean(copies: Copies) -> None:
    with copies() as database:
        verification = Verification()
        assert list(verify(database, verification)) == []
    assert verification.clean
    assert (verification.runs, verification.without_history) == (len(PLANS) + 1, 0)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_planted_in_a_copy_is_found(copies: Copies, name: str) -> None:
    statements, kind = CORRUPTIONS[name]
    with copies() as database:
        _plant(database, statements)
        verification = Verification()
        found = list(verify(database, verification))
    assert kind in {finding.kind for finding in found}, found
    assert not verification.clean
    assert verification.findings.total() == len(found)


def test_every_kind_of_finding_is_planted_by_some_corruption() -> None:
    assert {kind for _, kind in CORRUPTIONS.values()} == set(KINDS)
