"""The stage, on SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import open_database
from tests.compiled_statements import SHARED_COMPILATION
from tests.core.checker import check
from tests.isolation.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def unchecked_stage(migrated_sqlite_url: str) -> Iterator[Stage]:
    """A stage on SQLite, for tests that move a single entity, which leaves what follows undone."""
    database = open_database(migrated_sqlite_url, **SHARED_COMPILATION)
    yield Stage(database)
    database.dispose()


@pytest.fixture
def stage(unchecked_stage: Stage) -> Iterator[Stage]:
    """A stage whose history is replayed when the test is over."""
    yield unchecked_stage
    check(unchecked_stage.database)
