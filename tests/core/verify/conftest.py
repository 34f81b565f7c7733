"""Copies of a database in which the workload was carried out, each to be corrupted by one test."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from interlock.core import open_database
from interlock.core.verify import Verification, verify
from tests.compiled_statements import SHARED_COMPILATION
from tests.core.verify.workload import carry_out, plant
from tests.servers import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from interlock.core import Database
    from tests.servers import PostgresDatabases


@pytest.fixture(scope="session")
def _sqlite_workload(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("workload") / "original.db"
    _copy_file(sqlite_template, path)
    _carry_out(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def _postgres_workload(postgres_databases: PostgresDatabases, postgres_template: str) -> Iterator[str]:
    with postgres_databases.fresh(postgres_template) as url:
        _carry_out(url)
        yield name_of(url)


def _carry_out(url: str) -> None:
    database = open_database(url, **SHARED_COMPILATION)
    try:
        carry_out(database)
    finally:
        database.dispose()


def _copy_file(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)


@pytest.fixture
def _sqlite_copy(_sqlite_workload: Path, tmp_path: Path) -> str:
    path = tmp_path / "copy.db"
    _copy_file(_sqlite_workload, path)
    return f"sqlite:///{path}"


@pytest.fixture
def _postgres_copy(postgres_databases: PostgresDatabases, _postgres_workload: str) -> Iterator[str]:
    with postgres_databases.fresh(_postgres_workload) as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def copy(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A copy of the workload's database."""
    url: str = request.getfixturevalue({"sqlite": "_sqlite_copy", "postgresql": "_postgres_copy"}[request.param])
    database = open_database(url, **SHARED_COMPILATION)
    yield database
    database.dispose()


@pytest.fixture
def kinds_found(copy: Database) -> Callable[[list[str]], set[str]]:
    """The kinds of what is found after statements were carried out behind Interlock's back."""

    def found(statements: list[str]) -> set[str]:
        plant(copy, statements)
        verification = Verification()
        findings = list(verify(copy, verification))
        assert not verification.clean
        assert verification.findings.total() == len(findings)
        return {finding.kind for finding in findings}

    return found
