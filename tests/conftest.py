"""Fixtures: one private server of each kind per test process, a fresh database per test.

`INTERLOCK_TEST_POSTGRES_URL`, `INTERLOCK_TEST_REDIS_URL` and `INTERLOCK_TEST_BROKER_URL` replace
the private servers behind the URL fixtures. The first names a role that may create databases; the
databases of Redis from the given number upwards are emptied. `redis_server` and `postgres_server`
are always private, since tests stop and kill them.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import hypothesis
import pytest
import redis

from tests.servers import PostgresDatabases, PostgresServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DATABASE_KINDS = ("sqlite", "postgresql")
_BROKER_DATABASE_OFFSET = 1

# How long an example takes says something about the machine's load, nothing about the property.
hypothesis.settings.register_profile("interlock", deadline=None)
hypothesis.settings.load_profile("interlock")


def _worker_number() -> int:
    """Return the number of this pytest-xdist process, 0 where there is one process only."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def _unique_name() -> str:
    return f"interlock_test_{uuid.uuid4().hex}"


def _with_redis_database(url: str, number: int) -> str:
    return urlsplit(url)._replace(path=f"/{number}").geturl()


def _flush(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


# Redis


@pytest.fixture(scope="session")
def _session_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(_session_redis: RedisServer) -> RedisServer:
    """A running, empty, private Redis server, to be stopped and killed at will."""
    _session_redis.start()  # the test before may have left it stopped
    with redis.Redis.from_url(_session_redis.url()) as client:
        client.flushall()
    return _session_redis


def _redis_url(request: pytest.FixtureRequest, offset: int) -> str:
    if external := os.environ.get("INTERLOCK_TEST_REDIS_URL"):
        first = int(urlsplit(external).path.strip("/") or 0)
        return _flush(_with_redis_database(external, first + 2 * _worker_number() + offset))
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url(offset)


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty Redis database, for events."""
    return _redis_url(request, 0)


@pytest.fixture
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of a Celery broker: an empty Redis database that is not `redis_url`'s.

    With `INTERLOCK_TEST_BROKER_URL` set, it is that one, and it is not emptied.
    """
    external = os.environ.get("INTERLOCK_TEST_BROKER_URL")
    return external or _redis_url(request, _BROKER_DATABASE_OFFSET)


# databases


@pytest.fixture(scope="session")
def _session_postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_server(_session_postgres: PostgresServer) -> PostgresServer:
    """A running, private PostgreSQL server, to be stopped and killed at will."""
    return _session_postgres.start()


@pytest.fixture(scope="session")
def _postgres_databases(request: pytest.FixtureRequest) -> PostgresDatabases:
    if external := os.environ.get("INTERLOCK_TEST_POSTGRES_URL"):
        return PostgresDatabases(external)
    server: PostgresServer = request.getfixturevalue("_session_postgres")
    return server.databases


@pytest.fixture
def _running_postgres(request: pytest.FixtureRequest) -> PostgresDatabases:
    if "INTERLOCK_TEST_POSTGRES_URL" not in os.environ:
        request.getfixturevalue("postgres_server")
    databases: PostgresDatabases = request.getfixturevalue("_postgres_databases")
    return databases


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'interlock.db'}"


@pytest.fixture
def postgres_url(_running_postgres: PostgresDatabases) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, dropped after the test."""
    yield from _fresh_postgres(_running_postgres, template=None)


def _fresh_postgres(databases: PostgresDatabases, template: str | None) -> Iterator[str]:
    name = _unique_name()
    yield databases.create(name, template)
    databases.drop(name)


@pytest.fixture(params=_DATABASE_KINDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database; the test runs once per kind of database."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


# migrated databases: migrated once per test process, then copied


def _upgrade(url: str) -> None:
    from interlock.migrations import upgrade  # noqa: PLC0415 - tests that need no tables load no Alembic

    upgrade(url)


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "migrated.db"
    _upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def _postgres_template(_postgres_databases: PostgresDatabases) -> Iterator[str]:
    name = _unique_name()
    _upgrade(_postgres_databases.create(name))
    yield name
    _postgres_databases.drop(name)


@pytest.fixture
def migrated_sqlite_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a SQLite file with all tables and no rows."""
    path = tmp_path / "migrated.db"
    with (
        closing(sqlite3.connect(_sqlite_template)) as source,
        closing(sqlite3.connect(path)) as copy,
    ):
        source.backup(copy)  # unlike a copy of the file, it includes what is still in the WAL
    return f"sqlite:///{path}"


@pytest.fixture
def migrated_postgres_url(_running_postgres: PostgresDatabases, _postgres_template: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with all tables and no rows, dropped after the test."""
    yield from _fresh_postgres(_running_postgres, template=_postgres_template)


@pytest.fixture(params=_DATABASE_KINDS)
def migrated_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with all tables and no rows; the test runs once per kind."""
    fixture = {"sqlite": "migrated_sqlite_url", "postgresql": "migrated_postgres_url"}
    url: str = request.getfixturevalue(fixture[request.param])
    return url
