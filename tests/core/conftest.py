"""Fixtures of the core's tests: a database of each kind with the tables, and the objects that work on it.

Every test that uses `database` ends with a replay of the whole history (`checker`), whether it asks for it or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import Database, WorkflowController, open_database
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper
from tests.compiled_statements import SHARED_COMPILATION

from .checker import check
from .rows import Rows, forget_everything
from .worker_double import WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from tests.servers import PostgresDatabases


@pytest.fixture(scope="session")
def _core_postgres_url(postgres_databases: PostgresDatabases, postgres_template: str) -> Iterator[str]:
    """One migrated PostgreSQL database for all tests: emptying it is ten times quicker than making another."""
    with postgres_databases.fresh(postgres_template) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def core_url(request: pytest.FixtureRequest) -> str:
    """The URL of a migrated database without rows; the test runs once per kind."""
    if request.param == "sqlite":
        sqlite_url: str = request.getfixturevalue("migrated_sqlite_url")
        return sqlite_url
    url: str = request.getfixturevalue("_core_postgres_url")
    database = open_database(url, **SHARED_COMPILATION)
    forget_everything(database)
    database.dispose()
    return url


@pytest.fixture
def unchecked_database(core_url: str) -> Iterator[Database]:
    """An open database, for tests that leave it in a state which the engine alone would never leave."""
    database = open_database(core_url, **SHARED_COMPILATION)
    yield database
    database.dispose()


@pytest.fixture
def database(unchecked_database: Database) -> Iterator[Database]:
    """An open database whose history is replayed when the test is over."""
    yield unchecked_database
    check(unchecked_database)


@pytest.fixture
def settings() -> Settings:
    """The defaults, whatever the environment says."""
    return Settings()


@pytest.fixture
def worker(unchecked_database: Database, settings: Settings) -> WorkerDouble:
    """Broker and workers."""
    return WorkerDouble(unchecked_database, settings)


@pytest.fixture
def sweeper(unchecked_database: Database, settings: Settings) -> Sweeper:
    """A sweeper, to be called by hand."""
    return Sweeper(unchecked_database, settings)


@pytest.fixture
def rows(unchecked_database: Database) -> Rows:
    """A look at the rows, and a hand on the clock."""
    return Rows(unchecked_database)


@pytest.fixture
def session(unchecked_database: Database) -> Iterator[Session]:
    """A session of the database, with no transaction open: each call commits its own."""
    with unchecked_database.session() as session:
        yield session


@pytest.fixture
def controller(session: Session, settings: Settings) -> WorkflowController:
    """A controller for the session id `default`."""
    return WorkflowController(session, settings=settings)
