"""Secrets planted everywhere (URLs, keys, arguments, input, result, comment), then all that is printed is searched for them.

A worker at level DEBUG with its engine, Celery's monitors, and the command line. What stays visible is what somebody asked to see:
a result by `result`, a comment by `history`; and what a body itself puts into an exception.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from celery import Celery
from redis import Redis
from sqlalchemy.engine import make_url

from interlock import Client, Step, Workflow
from tests.processes import spawn
from tests.servers import HOST, ROOT, CeleryWorker, RedisServer, wait_until
from tests.worker.deployment import DEADLINE_S, Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import PostgresDatabases

pytestmark = [pytest.mark.long, pytest.mark.integration]

APP = "tests.worker.secrets_app"
NAMES = ("database", "redis", "key", "argument", "keyword", "input", "result", "comment")


class World:
    """A worker, its servers, and a client of theirs; `planted` is what must not be seen."""

    def __init__(self, redis: RedisServer, database_url: str, folder: Path) -> None:
        self.planted = {name: f"{name}-{secrets.token_hex(20)}" for name in NAMES}
        with Redis(host=HOST, port=redis.port) as admin:
            admin.config_set("requirepass", self.planted["redis"])
        url = make_url(database_url).set(password=self.planted["database"])
        url = url.update_query_dict({"sslpassword": self.planted["database"]})
        self.database_url = url.render_as_string(hide_password=False)
        self.redis_url = f"redis://:{self.planted['redis']}@{HOST}:{redis.port}/0"
        self.environment = {
            "SECRETS_REDIS_URL": self.redis_url,
            "SECRETS_DATABASE_URL": self.database_url,
            "SECRETS_KEY": self.planted["key"],
            "SECRETS_RESULT": self.planted["result"],
            "TEST_LEDGER_URL": self.redis_url.replace("/0", "/3"),
            "PYTHONPATH": str(ROOT),
        }
        options = ("--loglevel=DEBUG", "--task-events")
        self.worker = CeleryWorker(APP, log=folder / "worker.log", env=self.environment, args=options)
        self.ledger = Ledger(self.environment["TEST_LEDGER_URL"])
        self.events = folder / "events.log"
        app = Celery("secrets_client", broker=self.redis_url, set_as_current=False)
        app.conf.update(interlock_database_url=self.database_url, interlock_redis_url=self.redis_url)
        app.conf.interlock_check_tasks = False  # it has none; those that other tests declare seem to be its own
        self.app = app
        self.client = Client(app, actor="tester")

    def interlock(self, *words: str) -> str:
        """Run a command of ours, and return all that it printed."""
        return self._command("interlock.cli.main", *words)

    def celery(self, *words: str) -> str:
        """Run a command of Celery's, and return all that it printed."""
        return self._command("celery", *words)

    def inspect(self, *words: str) -> str:
        """Ask the worker by `celery inspect`, which waits for a second by itself; its answer ends the wait."""
        return self.celery("inspect", "--timeout", "20", "--destination", self.worker.node, *words)

    def _command(self, module: str, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module, "-A", APP, *words],
            check=False,
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0 or "doctor" in words, done.stdout
        return done.stdout

    def seen_in(self, text: str, *, but: tuple[str, ...] = ()) -> list[str]:
        """Names of the secrets that a text shows."""
        return [name for name, secret in self.planted.items() if secret in text and name not in but]


@pytest.fixture(scope="module")
def world(
    postgres_databases: PostgresDatabases, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Servers with passwords, a worker that says all that it can, and a monitor that writes down Celery's events."""
    with postgres_databases.fresh(postgres_template) as database_url, RedisServer() as redis:
        world = World(redis, database_url, tmp_path_factory.mktemp("secrets"))
        with world.worker, world.client:
            monitor = spawn(
                [sys.executable, "-m", "celery", "-A", APP, "events", "--dump"],
                log=world.events,
                cwd=ROOT,
                parent_gone=signal.SIGTERM,
                env={**os.environ, **world.environment, "PYTHONUNBUFFERED": "1"},
            )
            try:
                yield world
            finally:
                monitor.terminate()
                monitor.wait()
                world.ledger.close()
        world.app.close()


@pytest.mark.timeout(400)
def test_nothing_planted_is_printed_by_worker_engine_monitors_and_command_line(world: World) -> None:
    planted = world.planted
    step = Step(
        "a",
        f"{APP}.hold",
        ("gate", planted["argument"]),
        {"also": {"$expr": "input.deep"}},
        approval=True,
        queue="celery",
    )
    wait_until(lambda: "starting capture" in world.events.read_text(), DEADLINE_S, "the monitor listens")
    run_id = world.client.enqueue(Workflow("secret", "Keep it.", [step]), {"deep": planted["input"]})
    cli = [world.interlock("approve", run_id, "a", "--comment", planted["comment"])]
    step_id = next(step["step_id"] for step in world.client.status(run_id)["steps"])
    world.ledger.wait_for(step_id, "begin")
    monitors = [world.inspect("active"), world.inspect("query_task", f"{step_id}.1")]
    assert all(f"{APP}.hold" in shown for shown in monitors), "the running step is shown"
    world.ledger.open_gate("gate")
    assert world.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"

    monitors += [world.inspect("conf"), world.celery("report")]
    assert all("interlock_signing_keys" in shown and "interlock_redis_url" in shown for shown in monitors[2:])
    for words in (("status", run_id), ("explain", run_id), ("list",), ("graph", run_id), ("db", "check"), ("verify",)):
        cli += [world.interlock(*words)]
    cli += [world.interlock("doctor", "--timeout", "10")]
    processes = [psutil.Process(pid) for pid in (world.worker.pid, *world.worker.child_pids())]
    lines = [" ".join(process.cmdline()) for process in processes]
    assert any("interlock.worker.engine" in line for line in lines)
    assert world.client.result(run_id, "a") == {
        "first": planted["argument"],
        "second": planted["input"],
        "own": planted["result"],
    }
    world.app.send_task(f"{APP}.foreign", ("a foreign result",))
    wait_until(lambda: world.events.read_text().count("task succeeded") == 2, DEADLINE_S, "Celery's events have both")
    wait_until(lambda: world.worker.output.count("succeeded in") == 2, DEADLINE_S, "both results are logged")
    log, events = world.worker.output, world.events.read_text()
    assert "a foreign result" in events
    assert "TaskPool: Apply" in log, "the level is DEBUG"
    assert "'a foreign result'" in log, "other tasks are shown as ever"

    assert world.seen_in(log) == []
    assert world.seen_in(events) == []
    assert world.seen_in("\n".join(monitors)) == []
    assert world.seen_in("\n".join(lines)) == []
    assert world.seen_in("\n".join(cli), but=("comment",)) == []
    assert world.seen_in(world.interlock("history", run_id)) == ["comment"], "asked for"


ADDRESSES: list[tuple[str, ...]] = [
    ("--database-url", "postgresql://ada:{0}@127.0.0.1:1/x?sslpassword={0}"),
    ("--database-url", "postgresql://ada:{0}@127.0.0.1:{0}/x"),
    ("--database-url", "mysql://ada:{0}@127.0.0.1/x"),
    ("--database-url", "{0}"),
    ("--broker-url", "redis://:{0}@127.0.0.1:1/0"),
    ("--broker-url", "redis://:{0}/{0}@127.0.0.1:1/0"),
    ("--broker-url", "amqp://ada:{0}@127.0.0.1:1//"),
    ("--broker-url", "http://ada:{0}@127.0.0.1:1//"),
]


@pytest.mark.parametrize("command", ["list", "doctor"])
@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: address[1])
def test_an_address_that_does_not_work_is_not_quoted(
    address: tuple[str, ...], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = secrets.token_hex(20)
    monkeypatch.setenv("INTERLOCK_COMMAND_TIMEOUT_S", "2")
    option, url = address
    words: Any = ["-m", "interlock.cli.main", command, option, url.format(secret), "--data", tmp_path / "none"]
    done = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True, cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode in {1, 2}, said
    assert "Error:" in said or command == "doctor"
    assert "Traceback" not in said
    assert secret not in said
