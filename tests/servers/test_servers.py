"""The private test servers themselves: what all other tests stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest
import redis
from sqlalchemy import create_engine, inspect

from tests.servers import CeleryWorker, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import PostgresServer, RedisServer

pytestmark = pytest.mark.integration

_APP = """\
import os
from celery import Celery

app = Celery("sample", broker=os.environ["SAMPLE_BROKER_URL"])
app.conf.task_ignore_result = True


@app.task(name="touch")
def touch(path):
    open(path, "w").close()
"""


@pytest.fixture
def sample_worker(tmp_path: Path, broker_url: str) -> CeleryWorker:
    """A worker of a small app, not started."""
    (tmp_path / "sample_app.py").write_text(_APP)
    return CeleryWorker(
        "sample_app:app",
        log=tmp_path / "worker.log",
        concurrency=1,
        env={"SAMPLE_BROKER_URL": broker_url},
        cwd=tmp_path,
    )


def test_redis_answers_on_its_own_port(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url()) as client:
        assert client.ping()
        assert client.info("server")["process_id"] == redis_server.pid
    assert redis_server.port != 6379


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_redis_comes_back_empty_on_the_same_port(redis_server: RedisServer, end: str) -> None:
    with redis.Redis.from_url(redis_server.url(), socket_timeout=5) as client:
        client.set("key", "value")
        getattr(redis_server, end)()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        redis_server.start()
        assert client.get("key") is None


def test_a_stopped_redis_runs_again_for_the_next_test(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_a_database_url_names_an_empty_database(database_url: str) -> None:
    engine = create_engine(database_url)
    try:
        assert inspect(engine).get_table_names() == []
    finally:
        engine.dispose()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_postgres_keeps_what_was_committed(postgres_server: PostgresServer, end: str) -> None:
    url = postgres_server.create_database(f"kept_{end}").replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (id int)")
    getattr(postgres_server, end)()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)
    postgres_server.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_database_can_be_copied_from_a_template(postgres_server: PostgresServer) -> None:
    databases = postgres_server.databases
    source = databases.create("template_source").replace("+psycopg", "")
    with psycopg.connect(source) as connection:
        connection.execute("CREATE TABLE copied (id int)")
    copy = postgres_server.create_database("template_copy", template="template_source")
    with psycopg.connect(copy.replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM copied").fetchone() == (0,)
    databases.drop("template_copy")
    databases.drop("template_source")


def test_a_worker_is_ready_runs_a_task_shuts_down_warmly_and_can_start_again(
    sample_worker: CeleryWorker, tmp_path: Path, broker_url: str
) -> None:
    from celery import Celery  # noqa: PLC0415 - the other tests here need no Celery

    done = tmp_path / "done"
    with Celery("producer", broker=broker_url) as app, sample_worker:
        assert len(sample_worker.child_pids()) == 1
        app.send_task("touch", [str(done)], ignore_result=True)
        wait_until(done.exists, 10, "the task ran")
    assert sample_worker.returncode == 0
    with sample_worker:
        assert sample_worker.output.count(f"{sample_worker.node} ready.") == 2


def test_a_killed_worker_leaves_no_process(sample_worker: CeleryWorker) -> None:
    sample_worker.start()
    pids = [sample_worker.pid, *sample_worker.child_pids()]
    sample_worker.kill()
    assert not sample_worker.running
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    worker = CeleryWorker("no_such_module", log=tmp_path / "worker.log", cwd=tmp_path)
    with pytest.raises(RuntimeError, match="no_such_module"):
        worker.start()


def test_waiting_for_what_never_happens_names_it() -> None:
    with pytest.raises(TimeoutError, match="the moon"):
        wait_until(lambda: False, 0.05, "the moon")
