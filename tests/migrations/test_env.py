"""Alembic's own command line finds the migrations, and prints them."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing

import psycopg
import pytest

from interlock.core.database.revision import EXPECTED_REVISION
from interlock.migrations import current, downgrade, upgrade
from tests.migrations.catalog import definitions, objects
from tests.servers import ROOT

DEADLINE_S = 30


def _alembic(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alembic", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=DEADLINE_S)


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
