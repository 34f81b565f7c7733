"""The parts of an embedded server, one by one and as a library."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import redis

from interlock.cli.dev.embedded_redis import RedisBinary
from interlock.cli.dev.server import EmbeddedServer
from interlock.cli.dev.server_state import find_server
from interlock.cli.failures import ServerFailed
from tests.cli.shop_app import order
from tests.servers import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def test_a_program_runs_a_workflow_on_a_server_of_its_own(tmp_path: Path) -> None:
    """With the Redis that is always there; with the best one it is the next test."""
    data, fake = tmp_path / "data", RedisBinary("fakeredis")
    server = EmbeddedServer("tests.cli.shop_app:app", data, concurrency=2, queues=["rare"], redis=fake)
    with server, server.client(actor="ann") as client:
        assert find_server(data) is not None
        run_id = client.enqueue(order, {"n": 4})
        assert client.wait(run_id, 30) == "completed"
        assert client.history(run_id)[0].transitioned_by == "ann"
    assert find_server(data) is None
    server.stop()


def test_a_redis_that_dies_is_started_again_where_it_was(tmp_path: Path) -> None:
    stop = threading.Event()
    with EmbeddedServer("tests.cli.shop_app:app", tmp_path / "data", concurrency=2, queues=["rare"]) as server:
        url = server.broker_url
        supervisor = threading.Thread(target=server.supervise, args=(stop,))
        supervisor.start()
        try:
            with server.client() as client:
                assert client.wait(client.enqueue(order, {"n": 3}), 30) == "completed"
            with redis.Redis.from_url(url) as admin:
                admin.shutdown(nosave=True)
                wait_until(lambda: _answers(url), 20, "Redis is back")
            with server.client() as client:
                assert client.wait(client.enqueue(order, {"n": 4}), 40) == "completed"
        finally:
            stop.set()
            supervisor.join()


def test_a_worker_that_cannot_start_is_explained_by_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_LEASE_S", "never")
    server = EmbeddedServer("tests.cli.shop_app:app", tmp_path / "data")
    with pytest.raises(ServerFailed, match="lease_s"):
        server.start()
    assert find_server(tmp_path / "data") is None


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False
