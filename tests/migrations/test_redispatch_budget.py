"""Revision 0003 beside the release before it, which keeps the allowance in a row of control_commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from interlock.core.database.database import open_database
from interlock.core.settings import Settings
from interlock.core.sweeper.redispatch_rate import RedispatchRate
from interlock.core.sweeper.sweeper import Sweeper
from interlock.core.verify import Verification, verify
from interlock.migrations import check, downgrade, upgrade
from tests.migrations.catalog import connected, execute, objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core import Database

SETTINGS = Settings(redispatch_rate=0.2, sweep_s=50)  # ten at once
# What a sweeper of the release before writes: the row where there is none, and the time up to which it has paid.
OLD_ROW = (
    "INSERT INTO control_commands (session_id, id, command, outcome) VALUES ('*', 'redispatch', 'redispatch', '{}')"
)
OLD_PAYMENT = "UPDATE control_commands SET created_at = '2001-01-01 00:00:00.000000' WHERE session_id = '*'"


@pytest.fixture
def upgraded(database_url: str) -> Iterator[Database]:
    """A database of the release before, used by it, and then migrated."""
    upgrade(database_url, "0002")
    execute(database_url, OLD_ROW)
    upgrade(database_url)
    database = open_database(database_url)
    yield database
    database.dispose()


def _old_rows(url: str) -> int:
    with connected(url) as connection:
        return int(connection.scalar(text("SELECT count(*) FROM control_commands")) or 0)


def test_old_workers_keep_their_row_and_nobody_reports_it(upgraded: Database, database_url: str) -> None:
    rate = RedispatchRate(SETTINGS)
    upgraded.transact(lambda connection, _: rate.pay(connection, rate.draw(connection)))
    assert upgraded.transact(lambda connection, _: rate.draw(connection)) == 0
    Sweeper(upgraded, SETTINGS).sweep()
    assert _old_rows(database_url) == 1
    check(database_url)
    assert list(verify(upgraded, Verification())) == []


def test_the_row_of_old_workers_goes_like_an_old_command_when_they_are_gone(
    upgraded: Database, database_url: str
) -> None:
    execute(database_url, OLD_PAYMENT)
    Sweeper(upgraded, SETTINGS).sweep()
    assert _old_rows(database_url) == 0


def test_a_downgrade_leaves_what_the_release_before_had(database_url: str) -> None:
    upgrade(database_url, "0002")
    before = objects(database_url)
    upgrade(database_url)
    downgrade(database_url, "0002")
    assert objects(database_url) == before
    execute(database_url, OLD_ROW, OLD_PAYMENT)
