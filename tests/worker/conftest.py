"""A deployment per module: servers, a migrated database, workers that serve many tests; at the end its history is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.checker import check
from tests.servers import RedisServer
from tests.worker.deployment import CALM, DEADLINE_S, Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import PostgresDatabases


@pytest.fixture(scope="session")
def _worker_redis() -> Iterator[tuple[RedisServer, RedisServer]]:
    with RedisServer() as broker, RedisServer() as events:
        yield broker, events


@pytest.fixture(scope="module")
def worker_redis(_worker_redis: tuple[RedisServer, RedisServer]) -> tuple[RedisServer, RedisServer]:
    """Two servers, for the broker and for events; empty, also where the module before left one stopped."""
    for server in _worker_redis:
        server.restart()
    return _worker_redis


@pytest.fixture(scope="module")
def deployment(
    worker_redis: tuple[RedisServer, RedisServer],
    postgres_databases: PostgresDatabases,
    postgres_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """Broker, events server, PostgreSQL database and whatever workers the module starts."""
    folder: Path = tmp_path_factory.mktemp("deployment")
    with (
        postgres_databases.fresh(postgres_template) as url,
        Deployment(*worker_redis, url, folder, settings=CALM, answer_s=DEADLINE_S) as deployment,
    ):
        yield deployment
        deployment.stop_workers()
        check(deployment.database)
