"""Passwords and people's data stay out of errors and reprs: of the database, of its URL, of the settings."""

from __future__ import annotations

import traceback

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from interlock.core import open_database
from interlock.core.database.tables import WorkflowRun, new_id
from interlock.core.errors import ConfigurationError
from interlock.core.settings import Settings

SECRET = "s3cr3t"  # noqa: S105 - planted, to be looked for


def _told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def test_an_error_of_the_database_tells_the_statement_and_not_the_values(migrated_url: str) -> None:
    database = open_database(migrated_url)
    row = {"id": new_id(), "session_id": "s", "status": None, "input": {"card": SECRET}}
    try:
        with pytest.raises(DBAPIError) as refused, database.engine.begin() as connection:
            connection.execute(insert(WorkflowRun.__table__).values(**row))
    finally:
        database.dispose()
    told = _told(refused.value)
    assert "INSERT INTO workflow_runs" in told
    assert "constraint" in told
    assert SECRET not in told


def test_the_detail_in_which_postgresql_quotes_a_document_is_left_out(migrated_postgres_url: str) -> None:
    database = open_database(migrated_postgres_url)
    try:
        with pytest.raises(DBAPIError) as refused, database.engine.begin() as connection:
            connection.execute(text("SELECT CAST(:document AS jsonb)"), {"document": f"{{{SECRET}}}"})
    finally:
        database.dispose()
    told = _told(refused.value)
    assert "invalid input syntax for type json" in told
    assert SECRET not in told


def test_a_database_names_its_place_alone() -> None:
    database = open_database(f"postgresql://ada:{SECRET}@db.example:5433/shop?sslpassword={SECRET}")
    assert repr(database) == "<Database postgresql+psycopg://db.example:5433/shop>"


@pytest.mark.parametrize(
    "url",
    [f"postgresql://ada:pass:{SECRET}@db:{SECRET}/shop", f"{SECRET}", f"postgresql://ada:{SECRET}@db:{SECRET}/x"],
)
def test_a_url_that_cannot_be_read_is_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        open_database(url)
    assert "database_url" in str(refused.value)
    assert SECRET not in _told(refused.value)


def test_a_setting_that_does_not_fit_is_named_and_not_quoted() -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.load({"interlock_lease_s": SECRET, "interlock_database_url": [SECRET]}, {})
    assert "interlock_lease_s" in str(refused.value)
    assert SECRET not in _told(refused.value)


def test_settings_show_of_addresses_the_place_alone() -> None:
    settings = Settings(
        database_url=f"postgresql://ada:{SECRET}@db/shop?password={SECRET}", redis_url=f"redis://:{SECRET}@cache/0"
    )
    for shown in (repr(settings), str(settings), f"{settings}"):
        assert "database_url='postgresql://db/shop'" in shown
        assert "redis_url='redis://cache/0'" in shown
        assert SECRET not in shown
