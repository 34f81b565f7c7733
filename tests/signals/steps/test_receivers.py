"""How a report is brought to a database that is away for a while."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from interlock.core.errors import InvalidPlan
from interlock.signals.steps.receivers import persist


class Database:
    """Takes a report after some failures."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self._failures:
            raise self._failures.pop(0)
        return "taken"


def _lost() -> OperationalError:
    return OperationalError(None, None, ConnectionResetError(), connection_invalidated=True)


def test_a_report_is_made_until_the_database_has_taken_it() -> None:
    database = Database(_lost(), _lost())
    assert persist(database, retry_s=30) == "taken"
    assert database.tries == 3


def test_what_no_other_try_would_change_is_raised_at_once() -> None:
    database = Database(InvalidPlan(()))
    with pytest.raises(InvalidPlan):
        persist(database, retry_s=30)
    assert database.tries == 1


def test_after_its_time_the_last_failure_is_raised() -> None:
    with pytest.raises(OperationalError):
        persist(Database(*[_lost()] * 100), retry_s=0.01)
