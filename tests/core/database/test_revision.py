"""Which databases this version accepts: its own revision, and newer ones with a warning."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from interlock.core.database import revision
from interlock.core.database.database import open_database
from interlock.core.database.revision import EXPECTED_REVISION, require_revision
from interlock.core.errors import ConfigurationError, NotMigrated
from tests.migrations.catalog import execute, objects, set_revision

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core.database.database import Database


@pytest.fixture(autouse=True)
def _nobody_was_warned_before() -> None:
    revision._warn_newer.cache_clear()


def _require(url: str) -> None:
    with closing(_Disposable(url)) as opened:
        require_revision(opened.database)


class _Disposable:
    def __init__(self, url: str) -> None:
        self.database = open_database(url)

    def close(self) -> None:
        self.database.dispose()


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A migrated database."""
    with closing(_Disposable(migrated_url)) as opened:
        yield opened.database


def test_an_empty_database_is_not_migrated(database_url: str) -> None:
    before = objects(database_url)
    with pytest.raises(NotMigrated, match="interlock db upgrade") as caught:
        _require(database_url)
    assert (caught.value.current, caught.value.expected) == (None, EXPECTED_REVISION)
    assert objects(database_url) == before


@pytest.mark.parametrize("found", ["0000", "ae1027a6acf"], ids=["older", "foreign"])
def test_a_database_that_is_behind_or_foreign_is_refused(migrated_url: str, found: str) -> None:
    set_revision(migrated_url, found)
    with pytest.raises(NotMigrated) as caught:
        _require(migrated_url)
    assert caught.value.current == found


def test_a_version_table_without_a_row_is_not_migrated(migrated_url: str) -> None:
    execute(migrated_url, "DELETE FROM interlock_version")
    with pytest.raises(NotMigrated):
        _require(migrated_url)


def test_a_migrated_database_is_accepted(migrated_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _require(migrated_url)
    assert caplog.messages == []


def test_a_newer_database_is_accepted_with_one_warning(migrated_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Workers of the release before run on while the database is already upgraded."""
    set_revision(migrated_url, "0999")
    _require(migrated_url)
    _require(migrated_url)
    assert len(caplog.messages) == 1
    assert "0999" in caplog.text


def test_require_revision_costs_one_statement(database: Database) -> None:
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert require_revision(database) == EXPECTED_REVISION
    assert [statement for statement in statements if not statement.startswith("BEGIN")] == [
        "SELECT version_num FROM interlock_version"
    ]


def test_a_database_that_cannot_be_read_is_not_called_unmigrated(postgres_url: str) -> None:
    """An error other than the missing table is passed on as it is."""
    execute(postgres_url, "CREATE TABLE interlock_version (another_column INTEGER)")
    with pytest.raises(Exception, match="version_num") as caught:
        _require(postgres_url)
    assert not isinstance(caught.value, ConfigurationError)
