"""Upgrade and downgrade: all or nothing, one at a time, nothing left behind."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from interlock.core.backoff import Backoff
from interlock.core.database.revision import EXPECTED_REVISION, VERSION_TABLE
from interlock.core.errors import ConfigurationError
from interlock.migrations import check, current, downgrade, transaction, upgrade
from interlock.migrations.transaction import migrating
from tests.migrations.catalog import OURS, connected, definitions, execute, objects, set_revision, tables
from tests.servers import ADVISORY_LOCK_WAITERS, ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

DEADLINE_S = 30

# Says that it is ready, waits for a line, upgrades; once per URL given.
UPGRADE_WHEN_TOLD = """
import sys
from interlock.migrations import upgrade
for url in sys.argv[1:]:
    print("ready", flush=True)
    sys.stdin.readline()
    upgrade(url)
"""


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(toml_file=ROOT / "pyproject.toml"))


def _alembic(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alembic", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=DEADLINE_S)


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


def _start(*urls: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", UPGRADE_WHEN_TOLD, *urls],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate(timeout=DEADLINE_S)


def _tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def _assert_ended_well(process: subprocess.Popen[str]) -> None:
    out, error = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out, error) == (0, "", "")


@pytest.mark.integration
def test_two_processes_at_once_upgrade_sqlite_once(tmp_path: Path) -> None:
    """New files, twelve times: opening one, switching it to WAL and making the tables all race."""
    urls = [f"sqlite:///{tmp_path / str(number)}.db" for number in range(12)]
    with _start(*urls) as first, _start(*urls) as second:
        for _ in urls:
            for process in (first, second):
                _wait_until_ready(process)
            for process in (first, second):
                _tell(process)
        _assert_ended_well(first)
        _assert_ended_well(second)
    assert {current(url) for url in urls} == {EXPECTED_REVISION}


def test_threads_that_upgrade_different_databases_do_not_mix_them_up(tmp_path: Path) -> None:
    """Alembic keeps what it is working on in module globals."""
    urls = [f"sqlite:///{tmp_path / str(number)}.db" for number in range(8)]
    with ThreadPoolExecutor(max_workers=4) as threads:
        list(threads.map(upgrade, urls))
    for url in urls:
        check(url)


def test_a_file_that_somebody_else_is_making_is_waited_for(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite refuses at once to switch it to WAL, however long it may wait for other locks; then the other is done."""
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refusals: list[int] = []

        class Refused(Backoff):
            def pause_s(self, failures: int) -> float:
                refusals.append(failures)
                other.execute("COMMIT")
                return 0.0

        monkeypatch.setattr(transaction, "_PAUSES", Refused(0.0, 0.0))
        upgrade(sqlite_url)
    assert refusals == [1]
    assert current(sqlite_url) == EXPECTED_REVISION


def test_two_processes_at_once_upgrade_postgresql_once(postgres_url: str) -> None:
    """Both have seen the empty database and wait for the lock, before either may go on."""
    waiting = text(ADVISORY_LOCK_WAITERS)

    def hold_until_both_wait(connection: Connection) -> None:
        for process in (first, second):
            _wait_until_ready(process)
            _tell(process)
        wait_until(lambda: connection.scalar(waiting) == 2, DEADLINE_S, "both wait for the lock")

    with _start(postgres_url) as first, _start(postgres_url) as second:
        migrating(postgres_url, hold_until_both_wait)
        _assert_ended_well(first)
        _assert_ended_well(second)
    assert current(postgres_url) == EXPECTED_REVISION


def test_on_sqlite_a_table_can_be_rebuilt_without_losing_the_rows_that_refer_to_it(migrated_sqlite_url: str) -> None:
    """Later migrations alter SQLite's tables by copying, dropping and renaming them."""
    execute(
        migrated_sqlite_url,
        "INSERT INTO workflow_runs (id, session_id, status) VALUES ('r', 'default', 'draft')",
        "INSERT INTO workflow_steps (id, run_id, session_id, key, status) VALUES ('s', 'r', 'default', 'k', 'pending')",
    )

    def rebuild(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE copied AS SELECT id, session_id, status FROM workflow_runs"))
        connection.execute(text("DROP TABLE workflow_runs"))
        connection.execute(text("CREATE TABLE workflow_runs (id TEXT PRIMARY KEY, session_id TEXT, status TEXT)"))
        connection.execute(text("INSERT INTO workflow_runs SELECT * FROM copied"))

    migrating(migrated_sqlite_url, rebuild)
    with connected(migrated_sqlite_url) as connection:
        assert connection.scalars(text("SELECT id FROM workflow_steps")).all() == ["s"]


def test_on_sqlite_a_migration_that_would_break_a_reference_is_undone(migrated_sqlite_url: str) -> None:
    execute(
        migrated_sqlite_url,
        "INSERT INTO workflow_runs (id, session_id, status) VALUES ('r', 'default', 'draft')",
        "INSERT INTO workflow_steps (id, run_id, session_id, key, status) VALUES ('s', 'r', 'default', 'k', 'pending')",
    )
    with pytest.raises(ConfigurationError, match="workflow_steps without their workflow_runs"):
        migrating(migrated_sqlite_url, lambda connection: connection.execute(text("DELETE FROM workflow_runs")))
    with connected(migrated_sqlite_url) as connection:
        assert connection.scalars(text("SELECT id FROM workflow_runs")).all() == ["r"]


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


@pytest.mark.integration
def test_alembics_own_command_line_finds_everything(database_url: str) -> None:
    """Configured in pyproject.toml, by the same path as the functions."""
    upgraded = _alembic("-x", f"url={database_url}", "upgrade", "head")
    assert upgraded.returncode == 0, upgraded.stderr
    assert current(database_url) == EXPECTED_REVISION
    compared = _alembic("-x", f"url={database_url}", "check")
    assert compared.returncode == 0, compared.stdout + compared.stderr


@pytest.mark.integration
def test_the_printed_statements_make_the_same_tables(database_url: str) -> None:
    """`alembic upgrade head --sql`, for databases that only an administrator may alter."""
    printed = _alembic("-x", f"url={database_url}", "upgrade", "head", "--sql")
    assert printed.returncode == 0, printed.stderr
    _run_script(database_url, printed.stdout)
    by_script = definitions(database_url), objects(database_url)
    assert current(database_url) == EXPECTED_REVISION
    downgrade(database_url, "base")
    upgrade(database_url)
    assert (definitions(database_url), objects(database_url)) == by_script


def _run_script(url: str, script: str) -> None:
    # By the driver itself: it takes a whole script, transaction included.
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.executescript(script)
        return
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(script.encode())
