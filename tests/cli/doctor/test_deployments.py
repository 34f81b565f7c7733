"""`interlock doctor` on real servers and workers: what crosses a process is asked where it is."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from sqlalchemy import text

from interlock import Client
from interlock.core import open_database
from interlock.migrations import upgrade
from tests.cli.doctor.deployed import Shop
from tests.servers import CeleryWorker, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from interlock.core import Database
    from tests.servers import PostgresServer, RedisServer

    StartWorker = Callable[..., CeleryWorker]

# Other settings than the app that is named, and a clock that is five minutes ahead where Celery reads it for its events.
pytestmark = [pytest.mark.long, pytest.mark.integration]

WORSE = """
import time
from celery.events.event import Event

app.conf.update(task_acks_late=True, worker_deduplicate_successful_tasks=True, interlock_channel_prefix="x")
Event.__defaults__ = (*Event.__defaults__[:-1], lambda: time.time() + 300)
"""
PLAN = {"name": "order", "task_description": "x", "steps": [{"key": "pack", "task": "shop.pack"}]}


@pytest.fixture
def shop(tmp_path: Path, broker_url: str, migrated_postgres_url: str) -> Shop:
    """An app on PostgreSQL and Redis, with a migrated database."""
    return Shop(tmp_path, broker_url, migrated_postgres_url)


@pytest.fixture
def database(migrated_postgres_url: str) -> Iterator[Database]:
    """The app's database."""
    database = open_database(migrated_postgres_url)
    yield database
    database.dispose()


@pytest.fixture
def client(shop: Shop) -> Iterator[Client]:
    """A producer."""
    app = Celery("producer", broker=shop.environment["BROKER"], set_as_current=False)
    app.conf.interlock_check_tasks = False
    with Client(app, database_url=shop.environment["DATABASE"]) as client:
        yield client
    app.close()


@pytest.fixture
def start(shop: Shop, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers of the app."""
    workers: list[CeleryWorker] = []

    def start(*args: str, **environment: str) -> CeleryWorker:
        worker = CeleryWorker(
            "shop",
            log=tmp_path / f"worker{len(workers)}.log",
            env={**shop.environment, **environment},
            args=args,
            cwd=tmp_path,
        )
        workers.append(worker)
        return worker.start()

    yield start
    for worker in workers:
        worker.kill()


def _execute(database: Database, *statements: str) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(text(statement))


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.long
def test_a_deployment_that_works_has_nothing_but_what_its_test_server_leaves_out(
    shop: Shop, client: Client, start: StartWorker
) -> None:
    """The private PostgreSQL server runs without fsync, which is quicker and is just what must be found."""
    start()
    run_id = client.enqueue(PLAN)
    assert client.wait(run_id, timeout_s=30) == "completed"
    found = shop.diagnose()
    # A heartbeat that was held up on its way looks like a clock that is late.
    assert found.loud().keys() - {"clock_skew"} == {"durable"}
    assert found.severity("clock_skew") in ("ok", "warning")
    assert found.what("durable") == "`fsync` is off; `full_page_writes` is off"
    assert found.exit_code == 1
    for code in ("workers", "engine", "installed", "connections", "redis_eviction", "consumers", "pool"):
        assert found.severity(code) == "ok", code


def test_without_workers_what_waits_and_what_is_overdue_is_told(shop: Shop, client: Client, database: Database) -> None:
    assert shop.diagnose(timeout_s=1.0).severity("workers") == "warning"
    client.enqueue(PLAN)
    _execute(database, "UPDATE workflow_steps SET dispatch_check_at = clock_timestamp() - interval '10 minutes'")
    found = shop.diagnose(timeout_s=1.0)
    assert (found.severity("workers"), found.severity("engine"), found.severity("overdue")) == ("error",) * 3
    assert "has been so for 60" in found.what("overdue")
    assert found.severity("consumers") == "unknown"
    assert found.exit_code == 1


@pytest.mark.long
def test_a_queue_without_a_consumer_and_a_task_that_no_worker_knows(
    shop: Shop, client: Client, start: StartWorker
) -> None:
    """The plan names both; the routing of the app names neither."""
    worker = start("-Q", "celery,other")
    steps = [
        {"key": "a", "task": "shop.pack", "queue": "nobody"},
        {"key": "b", "task": "shop.unknown", "queue": "other", "after": ["a"]},
    ]
    client.enqueue({**PLAN, "steps": steps})
    found = shop.diagnose()
    assert (found.severity("consumers"), found.severity("known_tasks")) == ("error", "error")
    assert "consumes queue nobody: 1 steps wait in it, it holds 1 messages" in found.what("consumers")
    assert f"{worker.node} consumes queue other and does not know shop.unknown" in found.what("known_tasks")


@pytest.mark.long
def test_a_worker_without_interlock_is_found_and_so_is_a_pool_that_cannot_interrupt(
    shop: Shop, start: StartWorker
) -> None:
    plain = start(PLAIN="1")
    threads = start("--pool", "threads", "-Q", "threads")
    found = shop.diagnose()
    assert found.what("installed") == f"a worker without Interlock: {plain.node}"
    assert found.what("pool") == f"pools that cannot interrupt: {threads.node} (thread)"


@pytest.mark.long
def test_what_a_worker_is_configured_with_is_looked_at_there(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "worse.py").write_text((tmp_path / "shop.py").read_text() + WORSE)
    worker = CeleryWorker("worse", log=tmp_path / "worse.log", env=shop.environment, cwd=tmp_path)
    with worker:
        found = shop.diagnose()
    assert (found.severity("deduplication"), found.severity("channel_prefix")) == ("error", "error")
    assert found.what("deduplication").endswith(f"is on ({worker.node})")
    assert (
        found.what("channel_prefix") == f"`interlock_channel_prefix` is 'interlock' in this app; 'x' in {worker.node}"
    )
    assert found.severity("engine") == "error", "its engine listens on another queue"
    assert found.severity("clock_skew") == "error"
    assert re.search(rf"the clock of {worker.node} is \d\d\d\.\d s before the database's", found.what("clock_skew"))


@pytest.mark.long
def test_an_engine_that_does_not_start_is_missed(tmp_path: Path, broker_url: str, postgres_url: str) -> None:
    """The database has no tables: the engine says so in the worker's log, and ends."""
    shop = Shop(tmp_path, broker_url, postgres_url)
    worker = CeleryWorker("shop", log=tmp_path / "worker.log", env=shop.environment, cwd=tmp_path)
    with worker:
        wait_until(lambda: "interlock db upgrade" in worker.output, 30, "the engine has said why it ends")
        found = shop.diagnose()
    assert (found.severity("migrated"), found.severity("engine"), found.severity("workers")) == ("error", "error", "ok")
    assert "interlock db upgrade" in found.what("migrated")
    assert found.severity("overdue") == "unknown"


def test_what_postgresql_does_for_the_role_is_what_counts(shop: Shop, database: Database) -> None:
    """Not what the server's file says: a setting of the database wins over it."""
    name = database.engine.url.database
    _execute(
        database,
        f"ALTER DATABASE {name} SET synchronous_commit = off",
        f"ALTER DATABASE {name} SET statement_timeout = '7s'",
        f"ALTER DATABASE {name} SET default_transaction_read_only = on",
    )
    found = shop.diagnose(timeout_s=1.0)
    assert "`synchronous_commit` is off" in found.what("durable")
    assert found.what("database_timeouts") == "`statement_timeout` is 7 s"
    assert found.what("writable") == "`default_transaction_read_only` is on"


@pytest.mark.long
def test_a_redis_that_evicts_is_nearly_full_or_follows_another(
    shop: Shop, redis_server: RedisServer, broker_url: str
) -> None:
    before: dict[str, Any]
    with redis.Redis.from_url(broker_url, decode_responses=True) as server:
        before = server.config_get("maxmemory*")
        server.config_set("maxmemory-policy", "allkeys-lru")
        assert shop.diagnose(timeout_s=1.0).severity("redis_eviction") == "warning"
        server.config_set("maxmemory", server.info("memory")["used_memory"] + 50_000)
        server.replicaof("127.0.0.1", "1")
        try:
            found = shop.diagnose(timeout_s=1.0)
        finally:
            server.replicaof("NO", "ONE")
            for name in ("maxmemory", "maxmemory-policy"):
                server.config_set(name, before[name])
    assert (found.severity("redis_eviction"), found.severity("redis_replica")) == ("error", "error")
    assert found.severity("redis_memory") == "warning"
    assert redis_server.running


def test_parts_that_hang_cost_a_bounded_time_and_are_findings(
    tmp_path: Path, broker_url: str, redis_server: RedisServer, postgres_server: PostgresServer
) -> None:
    shop = Shop(tmp_path, broker_url, postgres_server.create_database("hanging"))
    upgrade(postgres_server.databases.url("hanging"))
    began = time.monotonic()
    with _stopped(redis_server.pid), _stopped(postgres_server.pid):
        found = shop.diagnose(timeout_s=1.0)
    assert time.monotonic() - began < 30, "two rounds of a few seconds, on a busy machine"
    assert (found.severity("database"), found.severity("broker"), found.severity("events")) == (
        "error",
        "error",
        "warning",
    )
    assert "no answer within" in found.what("broker")
    assert {found.severity(code) for code in ("migrated", "workers", "engine", "consumers")} == {"unknown"}
    assert found.severity("prefetch") == "ok", "what the app itself tells needs no server"


def test_parts_that_are_down_are_findings(tmp_path: Path) -> None:
    shop = Shop(tmp_path, "redis://:hunter2@127.0.0.1:1/0", "postgresql://u:hunter2@127.0.0.1:1/x")
    found = shop.diagnose(timeout_s=1.0)
    assert found.exit_code == 1
    assert (found.severity("database"), found.severity("broker")) == ("error", "error")
    assert "hunter2" not in json.dumps(found.findings)


def test_on_sqlite_the_file_is_looked_at(tmp_path: Path, broker_url: str, migrated_sqlite_url: str) -> None:
    missing = Shop(tmp_path, broker_url, f"sqlite:///{tmp_path / 'nowhere.db'}").diagnose(timeout_s=1.0)
    assert "interlock db upgrade" in missing.what("database")
    assert not (tmp_path / "nowhere.db").exists(), "looking makes no file"
    name = migrated_sqlite_url.rpartition("/")[2]
    relative = Shop(tmp_path, broker_url, f"sqlite:///{name}").diagnose(timeout_s=1.0)
    assert (relative.severity("database"), relative.severity("migrated")) == ("ok", "ok")
    assert relative.severity("sqlite_file") == "warning"
    assert relative.severity("sqlite_machines") == "ok"
    assert relative.severity("durable") is None


def test_celery_has_the_command_too(shop: Shop) -> None:
    done = shop.run("-m", "celery", "-A", "shop", "workflow", "doctor", "--json", "--timeout", "1")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert {each["code"] for each in document["findings"]} >= {"database", "broker", "durable", "workers"}


@pytest.mark.long
def test_addresses_alone_are_enough_for_what_they_reach(shop: Shop, start: StartWorker) -> None:
    """Without an app, Celery's settings are those that the workers tell."""
    worker = start()
    words = ["-m", "interlock.cli.main", "doctor", "--json", "--timeout", "5"]
    words += ["--database-url", shop.environment["DATABASE"], "--broker-url", shop.environment["BROKER"]]
    done = shop.run(*words)
    found = {each["code"]: each for each in json.loads(done.stdout)["findings"]}
    assert found["engine"]["severity"] == found["prefetch"]["severity"] == found["installed"]["severity"] == "ok"
    assert found["engine_app"]["severity"] == "unknown"
    assert worker.running
