"""Deployments: servers, a migrated database, workers that serve many tests; after each module the history is checked.

Most modules have one of their own, since they stop its servers or kill its workers. Those that only run steps share one, whose
worker is started once: they override `deployment` with `common_deployment`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.checker import check
from tests.servers import RedisServer
from tests.worker.deployment import CALM, COMMON_SLOTS, DEADLINE_S, Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.celery_worker import CeleryWorker
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
    folder = tmp_path_factory.mktemp("deployment")
    with (
        postgres_databases.fresh(postgres_template) as url,
        Deployment(*worker_redis, url, folder, settings=CALM, answer_s=DEADLINE_S) as deployment,
    ):
        yield deployment
        deployment.stop_workers()
        check(deployment.database)


_COMMON_APP = "tests.worker.author_tasks"


@pytest.fixture(scope="session")
def _common(
    postgres_databases: PostgresDatabases, postgres_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Deployment, CeleryWorker]]:
    folder = tmp_path_factory.mktemp("common")
    with (
        RedisServer() as broker,
        RedisServer() as events,
        postgres_databases.fresh(postgres_template) as url,
        Deployment(broker, events, url, folder, settings=CALM, answer_s=DEADLINE_S) as deployment,
    ):
        worker = deployment.worker(
            "common",
            concurrency=COMMON_SLOTS,
            app=_COMMON_APP,
            INTERLOCK_APP=f"{_COMMON_APP}:app",
            INTERLOCK_MAX_RESULT_BYTES="10000",
        )
        yield deployment, worker
        deployment.stop_workers()


@pytest.fixture(scope="module")
def common_deployment(
    _common: tuple[Deployment, CeleryWorker], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """The deployment that modules share, with one worker of four slots on the default queue, which knows all tasks."""
    deployment, worker = _common
    with deployment.lent(tmp_path_factory.mktemp("module"), worker):
        yield deployment
    check(deployment.database)


@pytest.fixture(scope="session")
def common_worker(_common: tuple[Deployment, CeleryWorker]) -> CeleryWorker:
    """Its worker."""
    return _common[1]
