"""Migrations run in one transaction, one process at a time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from interlock.core.backoff import Backoff
from interlock.core.database.revision import EXPECTED_REVISION
from interlock.core.errors import ConfigurationError
from interlock.migrations import check, current, transaction, upgrade
from interlock.migrations.transaction import migrating
from tests.migrations.catalog import connected, execute
from tests.servers import ADVISORY_LOCK_WAITERS, wait_until

if TYPE_CHECKING:
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
