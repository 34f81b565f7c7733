"""Fixtures: a Redis per test process, a PostgreSQL server that stays between runs, a fresh database per test.

`INTERLOCK_TEST_POSTGRES_URL`, `INTERLOCK_TEST_REDIS_URL` and `INTERLOCK_TEST_BROKER_URL` replace
the servers behind the URL fixtures. The first names a role that may create databases; the
databases of Redis from the given number upwards are emptied. `redis_server` and `postgres_server`
are always private, since tests stop and kill them. `make servers-stop` ends what stays.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import hypothesis
import pytest
import redis

from tests import flaky, templates
from tests.distribution import Distribution
from tests.servers import PostgresDatabases, PostgresServer, RedisServer, SharedPostgres, name_of
from tests.unit_tests import UnitTests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DATABASE_KINDS = ("sqlite", "postgresql")
_BROKER_DATABASE_OFFSET = 1

# How long an example takes says something about the machine's load, nothing about the property. What judges a change draws the
# same examples for the same code; what searches (`make faults`) draws others each time.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.register_profile("searching", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Have the options of continuous integration."""
    pluginmanager.register(flaky)


def pytest_configure(config: pytest.Config) -> None:
    """Tell unit tests from the others, and give them out."""
    config.pluginmanager.register(UnitTests())
    config.pluginmanager.register(Distribution())


def _worker_number() -> int:
    """Return the number of this pytest-xdist process, 0 where there is one process only."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


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
def _shared_postgres() -> Iterator[SharedPostgres | None]:
    if "INTERLOCK_TEST_POSTGRES_URL" in os.environ:
        yield None
        return
    with SharedPostgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_databases(_shared_postgres: SharedPostgres | None) -> PostgresDatabases:
    """The databases of a PostgreSQL server that other test processes use as well: `fresh` makes one for a test or a module."""
    if _shared_postgres is None:
        return PostgresDatabases(os.environ["INTERLOCK_TEST_POSTGRES_URL"])
    return _shared_postgres.databases


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'interlock.db'}"


@pytest.fixture
def postgres_url(postgres_databases: PostgresDatabases) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, dropped after the test."""
    with postgres_databases.fresh() as url:
        yield url


@pytest.fixture(params=_DATABASE_KINDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database; the test runs once per kind of database."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


# migrated databases: migrated once for all test runs with the same code, then copied


@pytest.fixture(scope="session")
def sqlite_template() -> Path:
    """A SQLite file with all tables and no rows, to be copied."""
    return templates.sqlite_file()


@pytest.fixture(scope="session")
def postgres_template(_shared_postgres: SharedPostgres | None, postgres_databases: PostgresDatabases) -> Iterator[str]:
    """The name of a PostgreSQL database with all tables and no rows, to be copied."""
    if _shared_postgres is not None:
        yield _shared_postgres.template(templates.fingerprint(), templates.upgrade)
        return
    with postgres_databases.fresh() as url:
        templates.upgrade(url)
        yield name_of(url)


@pytest.fixture
def migrated_sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a SQLite file with all tables and no rows."""
    return f"sqlite:///{shutil.copyfile(sqlite_template, tmp_path / 'migrated.db')}"


@pytest.fixture
def migrated_postgres_url(postgres_databases: PostgresDatabases, postgres_template: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with all tables and no rows, dropped after the test."""
    with postgres_databases.fresh(postgres_template) as url:
        yield url


@pytest.fixture(params=_DATABASE_KINDS)
def migrated_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with all tables and no rows; the test runs once per kind."""
    fixture = {"sqlite": "migrated_sqlite_url", "postgresql": "migrated_postgres_url"}
    url: str = request.getfixturevalue(fixture[request.param])
    return url
