"""Upgrade and downgrade: all or nothing, and nothing left behind."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from interlock.core.database.revision import EXPECTED_REVISION, VERSION_TABLE
from interlock.core.errors import ConfigurationError
from interlock.migrations import current, downgrade, upgrade
from tests.migrations.catalog import OURS, connected, definitions, execute, objects, set_revision, tables
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable


DEADLINE_S = 30


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(toml_file=ROOT / "pyproject.toml"))


def test_the_expected_revision_is_alembics_head() -> None:
    assert _scripts().get_heads() == [EXPECTED_REVISION]


def test_revisions_are_four_digits_that_rise_by_one() -> None:
    """Which of two revisions is newer must be known even where one of them is not."""
    newest_first = list(_scripts().walk_revisions())
    numbers = [script.revision for script in reversed(newest_first)]
    assert numbers == [f"{number:04d}" for number in range(1, len(numbers) + 1)]


def test_upgrade_makes_every_table_of_the_models(database_url: str) -> None:
    assert current(database_url) is None
    upgrade(database_url)
    assert current(database_url) == EXPECTED_REVISION
    assert tables(database_url) == {*OURS, VERSION_TABLE}


def test_upgrade_again_changes_nothing(migrated_url: str) -> None:
    before = objects(migrated_url)
    upgrade(migrated_url)
    upgrade(migrated_url, EXPECTED_REVISION)
    assert objects(migrated_url) == before


def test_upgrade_downgrade_upgrade_is_clean(database_url: str) -> None:
    empty = objects(database_url)
    upgrade(database_url)
    first, made = definitions(database_url), objects(database_url)
    downgrade(database_url, "base")
    assert current(database_url) is None
    assert objects(database_url) == empty
    upgrade(database_url)
    assert definitions(database_url) == first
    assert objects(database_url) == made


def test_a_failing_migration_leaves_the_database_as_it_was(database_url: str) -> None:
    """The table in the way is the last that the migrations make."""
    execute(database_url, "CREATE TABLE redispatch_budget (mine INTEGER)")
    before = objects(database_url)
    with pytest.raises(DBAPIError, match="already exists"):
        upgrade(database_url)
    assert objects(database_url) == before
    assert current(database_url) is None


def test_a_failing_downgrade_leaves_the_database_as_it_was(migrated_url: str) -> None:
    execute(migrated_url, "DROP TABLE workflow_runs" + (" CASCADE" if "postgresql" in migrated_url else ""))
    before = objects(migrated_url)
    with pytest.raises(DBAPIError, match="workflow_runs"):
        downgrade(migrated_url, "base")
    assert objects(migrated_url) == before


def test_an_unknown_revision_is_refused(migrated_url: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot upgrade the database to 'nonsense'"):
        upgrade(migrated_url, "nonsense")


@pytest.mark.parametrize("verb", [upgrade, lambda url: downgrade(url, "base"), current])
def test_another_kind_of_database_is_refused(verb: Callable[[str], object]) -> None:
    with pytest.raises(ConfigurationError, match="mysql"):
        verb("mysql://localhost/interlock")


def test_a_database_of_a_later_version_is_left_alone(migrated_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A process of the release before may start in the middle of a rolling upgrade."""
    set_revision(migrated_url, "0999")
    before = objects(migrated_url)
    upgrade(migrated_url)
    assert objects(migrated_url) == before
    assert current(migrated_url) == "0999"
    assert "newer" in caplog.text
    with pytest.raises(ConfigurationError, match="0999"):
        downgrade(migrated_url, "base")


def test_the_producers_own_alembic_history_is_not_touched(database_url: str) -> None:
    """Interlock lives in the database that is there, whose application may use Alembic as well."""
    execute(
        database_url,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        "INSERT INTO alembic_version VALUES ('ae1027a6acf')",
    )
    upgrade(database_url)
    downgrade(database_url, "base")
    with connected(database_url) as connection:
        assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == ["ae1027a6acf"]


def test_upgrade_says_nothing(sqlite_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    upgrade(sqlite_url)
    assert capfd.readouterr() == ("", "")
    assert (list(root.handlers), root.level) == (handlers, level)


@pytest.mark.integration
def test_migrations_import_no_celery_broker_or_redis(sqlite_url: str) -> None:
    """What they need by themselves: the facade, `interlock/__init__.py`, stays out of it."""
    program = """
import importlib.util, sys, types
facade = types.ModuleType("interlock")
facade.__path__ = list(importlib.util.find_spec("interlock").submodule_search_locations)
sys.modules["interlock"] = facade
from interlock.migrations import check, upgrade
upgrade(sys.argv[1])
check(sys.argv[1])
print(sorted({"celery", "kombu", "redis"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, sqlite_url],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
