"""`interlock verify`: what it prints for people and for programs, and its three exit codes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from interlock.core import WorkflowController, open_database
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

PLAN = {"task_description": "d", "steps": [{"key": "a", "task": "t"}]}


@pytest.fixture
def runs(migrated_sqlite_url: str) -> list[str]:
    """The ids of two runs."""
    database = open_database(migrated_sqlite_url)
    with database.session() as session:
        ids = [WorkflowController(session, name).enqueue_workflow(PLAN) for name in ("default", "other")]
    database.dispose()
    return ids


@pytest.fixture
def verify(cli: Callable[..., Result], migrated_sqlite_url: str) -> Callable[..., Result]:
    """`interlock verify` on that database."""
    return lambda *words: cli("--database-url", migrated_sqlite_url, "verify", *words)


def _corrupt(url: str, statement: str = "UPDATE workflow_runs SET open_steps = 7") -> None:
    database = open_database(url)
    with database.engine.begin() as connection:
        connection.execute(text(statement))
    database.dispose()


def _lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.usefixtures("runs")
def test_a_sound_database_is_clean_whatever_the_session(verify: Callable[..., Result]) -> None:
    result = verify()
    assert (result.exit_code, result.stdout) == (0, "2 runs, 2 steps, 8 rows of history: clean\n")


def test_what_is_found_is_a_line_each_and_the_exit_code_is_1(
    verify: Callable[..., Result], runs: list[str], migrated_sqlite_url: str
) -> None:
    _corrupt(migrated_sqlite_url)
    result = verify()
    assert result.exit_code == 1
    *found, summary = result.stdout.splitlines()
    assert sorted(found) == sorted(
        f"{run_id} workflow: open_steps is 7, and 1 steps are not settled (open_steps)" for run_id in runs
    )
    assert summary == "2 runs, 2 steps, 8 rows of history: 2 findings (docs/verify.md)"


def test_for_programs_each_finding_is_a_line_of_json_and_the_summary_the_last(
    verify: Callable[..., Result], runs: list[str], migrated_sqlite_url: str
) -> None:
    _corrupt(migrated_sqlite_url)
    result = verify(runs[1], "--json")
    assert result.exit_code == 1
    finding, summary = _lines(result)
    assert finding == {
        "type": "finding",
        "kind": "open_steps",
        "run_id": runs[1],
        "entity": "workflow",
        "text": "open_steps is 7, and 1 steps are not settled",
        "seq": None,
    }
    assert summary == {
        "type": "summary",
        "clean": False,
        "runs": 1,
        "steps": 1,
        "rows": 4,
        "without_history": 0,
        "findings": {"open_steps": 1},
    }


def test_entities_that_are_older_than_the_history_are_told_and_not_failed(
    verify: Callable[..., Result], migrated_sqlite_url: str
) -> None:
    _corrupt(
        migrated_sqlite_url,
        "INSERT INTO workflow_runs (id, session_id, status) VALUES ('old', 'default', 'executing')",
    )
    _corrupt(
        migrated_sqlite_url,
        "INSERT INTO workflow_steps (id, run_id, session_id, key, status, attempt, dispatch_check_at, task_id) "
        "VALUES ('step', 'old', 'default', 'a', 'running', 1, '2026-01-01 00:00:00', 'step.1')",
    )
    result = verify()
    assert (result.exit_code, result.stdout) == (
        0,
        "1 runs, 1 steps, 0 rows of history: clean; 2 entities without history\n",
    )


@pytest.mark.usefixtures("runs")
def test_a_run_that_does_not_exist_is_no_clean_run(verify: Callable[..., Result]) -> None:
    result = verify("00000000-0000-0000-0000-000000000000")
    assert result.exit_code == 2
    assert "00000000-0000-0000-0000-000000000000" in result.stderr


def test_what_cannot_be_checked_has_another_exit_code_than_what_was_found(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    empty = cli("--database-url", f"sqlite:///{tmp_path / 'empty.db'}", "verify", "--json")
    assert empty.exit_code == 2
    assert json.loads(empty.stderr)["error"] == "NotMigrated"
    away = cli("--database-url", "postgresql://nobody@127.0.0.1:1/x", "verify")
    assert (away.exit_code, away.stdout) == (2, "")
    assert cli("verify", "--no-such-option").exit_code == 2


@pytest.mark.integration
@pytest.mark.usefixtures("runs")
def test_on_a_terminal_it_says_how_far_it_is(migrated_sqlite_url: str) -> None:
    """Beside the answer, which is the last line; the line of progress is wiped out."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "interlock.cli.main", "--database-url", migrated_sqlite_url, "verify"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    output = b""
    with suppress(OSError):  # how a terminal ends
        while piece := os.read(ours, 1024):
            output += piece
    os.close(ours)
    assert process.wait() == 0, output
    shown, _, last = output.decode().rstrip().rpartition("\n")
    assert "rows of history so far …" in shown
    assert last.endswith("2 runs, 2 steps, 8 rows of history: clean")
