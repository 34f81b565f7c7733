"""RabbitMQ as the broker, where INTERLOCK_TEST_AMQP_URL names one: there is no RabbitMQ in a wheel to start ourselves."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from celery import Celery

from interlock import Client
from interlock.core.settings import Settings
from interlock.signals.control.queues import control_queue, dead_letter_queue
from tests.servers import ROOT, CeleryWorker

from .gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import RedisServer

collect_ignore_glob = [] if os.environ.get("INTERLOCK_TEST_AMQP_URL") else ["test_*.py"]


@pytest.fixture(scope="session")
def amqp_url() -> str:
    """The broker."""
    return os.environ["INTERLOCK_TEST_AMQP_URL"]


@pytest.fixture(scope="module")
def queue() -> str:
    """A name that nobody else on the server uses."""
    return f"interlock_test_{uuid4().hex}"


@pytest.fixture
def remote(
    amqp_url: str,
    queue: str,
    redis_server: RedisServer,
    migrated_postgres_url: str,
    tmp_path: Path,
) -> Iterator[Client]:
    """A client that knows the broker and Redis only; behind it a worker with the database."""
    with _deployed(amqp_url, amqp_url, queue, redis_server.url(0), migrated_postgres_url, tmp_path) as client:
        yield client


@pytest.fixture
def gateway(amqp_url: str) -> Iterator[Gateway]:
    """The way of `gated_remote`'s worker to the broker, which can be cut."""
    with Gateway(amqp_url) as gateway:
        yield gateway


@pytest.fixture
def gated_remote(
    amqp_url: str,
    gateway: Gateway,
    queue: str,
    redis_server: RedisServer,
    migrated_postgres_url: str,
    tmp_path: Path,
) -> Iterator[Client]:
    """The same, where the worker comes to the broker through the gateway; the client does not."""
    with _deployed(amqp_url, gateway.url, queue, redis_server.url(0), migrated_postgres_url, tmp_path) as client:
        yield client
        gateway.mend()  # a worker that cannot reach its broker takes a minute to stop


@contextmanager
def _deployed(
    client_url: str, worker_url: str, queue: str, redis_url: str, database_url: str, folder: Path
) -> Iterator[Client]:
    environment = {
        "INTERLOCK_DATABASE_URL": database_url,
        "INTERLOCK_REDIS_URL": redis_url,
        "INTERLOCK_TEST_AMQP_URL": worker_url,
        "TEST_QUEUE": queue,
        "PYTHONPATH": str(ROOT),
    }
    log = folder / "worker.log"
    worker = CeleryWorker("tests.rabbitmq.rabbit_app", log=log, concurrency=2, env=environment, args=(), cwd=ROOT)
    settings = Settings.load(None, {}, channel_prefix=queue, command_timeout_s=15, watch_poll_s=1)
    worker.start()
    try:
        with Client(broker_url=client_url, redis_url=redis_url, settings=settings, actor="remote") as client:
            yield client
    finally:
        worker.terminate()
        _delete_queues(client_url, queue)


def _delete_queues(amqp_url: str, queue: str) -> None:
    app = Celery("cleaner", broker=amqp_url, set_as_current=False)
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        for name in (queue, control_queue(queue).name, dead_letter_queue(queue).name):
            channel.queue_delete(name)
            channel.exchange_delete(name)
    app.close()
