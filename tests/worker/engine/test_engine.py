"""What the engine makes of MAIN's messages: heartbeats at once, observations in their order, and none stops the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from interlock.core import WorkflowController, open_database
from interlock.core.settings import Settings
from interlock.worker.engine import engine as module
from interlock.worker.engine.engine import Engine
from tests.core.rows import Rows, steps
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core import Database


@pytest.fixture
def database(migrated_sqlite_url: str) -> Iterator[Database]:
    """The engine's database, by a connection of the test's own."""
    database = open_database(migrated_sqlite_url)
    yield database
    database.dispose()


@pytest.fixture
def engine(migrated_sqlite_url: str) -> Iterator[Engine]:
    """An engine whose threads are not started."""
    app = Celery("engine", broker="amqp://127.0.0.1:1//", set_as_current=False)
    app.conf.update(interlock_database_url=migrated_sqlite_url)
    engine = Engine(app, "worker@1")
    yield engine
    engine._runtime.close()


def _enqueue(database: Database, *keys: str) -> str:
    with database.session() as session:
        return WorkflowController(session).enqueue_workflow(steps(*keys), task_description="x")


def _ended(worker: WorkerDouble, key: str) -> dict[str, Any]:
    ref = worker.held[key]
    identity = {"run_id": ref.run_id, "step_id": ref.step_id, "task_id": ref.task_id}
    return {"ended": {**identity, "cause": "worker_lost", "message": "SIGKILL"}}


def test_a_heartbeat_is_answered_with_what_is_to_stop(
    engine: Engine, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = WorkerDouble(database, Settings())
    run_id = _enqueue(database, "a")
    ref = worker.claim("a")
    engine._hear({"held": [ref.task_id]})
    assert capsys.readouterr().out == ""
    with database.session() as session:
        WorkflowController(session).cancel_workflow(run_id)
    engine._hear({"held": [ref.task_id]})
    assert json.loads(capsys.readouterr().out) == {"interrupts": [{"task_ids": [ref.task_id], "mode": "cancel"}]}


def test_an_observation_that_fails_does_not_stop_those_behind_it(engine: Engine, database: Database) -> None:
    worker = WorkerDouble(database, Settings())
    run_id = _enqueue(database, "a")
    worker.claim("a")
    for message in ({"ended": {}}, {"nobody knows": 1}, _ended(worker, "a"), None):
        engine._observations.put(message)
    engine._take_observations()
    assert Rows(database).step(run_id, "a").losses == 1


def test_of_too_many_observations_some_are_dropped_with_a_warning(
    migrated_sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_MOST_OBSERVATIONS", 1)
    app = Celery("engine", broker="amqp://127.0.0.1:1//", set_as_current=False)
    app.conf.update(interlock_database_url=migrated_sqlite_url)
    engine = Engine(app, "worker@1")
    engine._hear({"ended": {}})
    assert not caplog.records
    engine._hear({"ended": {}})
    assert "leases will decide" in caplog.text
    engine._runtime.close()
