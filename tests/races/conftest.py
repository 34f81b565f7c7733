"""One PostgreSQL database and one field of processes for all the races; every test ends with a replay of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import Database, WorkflowController, open_database
from interlock.core.settings import Settings
from tests.compiled_statements import SHARED_COMPILATION
from tests.core.checker import check
from tests.core.rows import Rows, forget_everything
from tests.core.worker_double import WorkerDouble

from .racers import Racers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers import PostgresDatabases

RUNNERS = 8


@pytest.fixture(scope="session")
def races_url(postgres_databases: PostgresDatabases, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database."""
    with postgres_databases.fresh(postgres_template) as url:
        yield url


@pytest.fixture(scope="session")
def racers(races_url: str) -> Iterator[Racers]:
    """Eight processes, kept over all the tests."""
    with Racers(races_url, RUNNERS) as racers:
        yield racers


@pytest.fixture
def database(races_url: str) -> Iterator[Database]:
    """The database, emptied, whose history is replayed when the test is over."""
    database = open_database(races_url, **SHARED_COMPILATION)
    forget_everything(database)
    yield database
    check(database)
    database.dispose()


@pytest.fixture
def rows(database: Database) -> Rows:
    """A look at the rows."""
    return Rows(database)


@pytest.fixture
def worker(database: Database) -> WorkerDouble:
    """The queue of what this process enqueues."""
    return WorkerDouble(database, Settings())


@pytest.fixture
def controller(database: Database) -> Iterator[WorkflowController]:
    """A controller of this process."""
    with database.session() as session:
        yield WorkflowController(session, settings=Settings())
