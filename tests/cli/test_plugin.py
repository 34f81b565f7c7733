"""celery workflow: the same commands, and nothing that makes every start of celery slower."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from interlock.cli.command_group import SECTIONS
from interlock.cli.plugin import workflow

COMMANDS = [name for section in SECTIONS.values() for name in section]


def test_celery_has_the_same_verbs_without_those_that_make_no_sense_there() -> None:
    assert set(workflow.list_commands(click.Context(workflow))) == set(COMMANDS) - {"dev", "completion"}


@pytest.mark.integration
def test_importing_the_plugin_loads_no_command() -> None:
    """Every `celery` start imports it."""
    code = (
        "import sys; import interlock; before = set(sys.modules); import interlock.cli.plugin;"
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith(('click', 'difflib', 'getpass'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.strip("[]\n").replace("'", "").split(", "))
    assert not loaded & {
        "rich",
        "alembic",
        "interlock.cli.commands.reading",
        "interlock.cli.connection",
        "interlock.migrations",
    }


@pytest.mark.integration
def test_celery_shows_the_verbs_as_its_own() -> None:
    command = [sys.executable, "-m", "celery", "-A", "interlock.worker", "workflow", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "celery workflow" in done.stdout
    assert "pause" in done.stdout
