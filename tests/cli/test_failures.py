"""What is expected to go wrong is one line and an exit code; a bug is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from interlock.cli.failures import ServerFailed
from interlock.core.errors import CommandTimeout, InterlockError, InvalidPlan, NotMigrated, TransitionNotAllowed
from tests.cli.conftest import RUN

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.cli.conftest import FakeClient


URL = ("--database-url", "sqlite://")


REFUSED: dict[str, Any] = {
    "entity_type": "workflow_run",
    "entity_id": RUN,
    "from_state": "completed",
    "to_state": "paused",
}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TransitionNotAllowed(**REFUSED), 1),
        (CommandTimeout("c1", 10), 1),
        (NotMigrated(None, "0001"), 1),
        (InvalidPlan(["steps: empty"]), 1),
        (ServerFailed("it broke"), 1),
        (FileNotFoundError(2, "No such file", "gone.db"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_a_message_and_an_exit_code(
    client: FakeClient,
    cli: Callable[..., Result],
    error: Exception,
    code: int,
) -> None:
    client.error = error
    result = cli(*URL, "pause", RUN)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    if isinstance(error, InterlockError):
        assert str(error) in result.stderr


def test_a_database_without_tables_names_the_command_to_run(cli: Callable[..., Result], sqlite_url: str) -> None:
    result = cli("--database-url", sqlite_url, "list")
    assert result.exit_code == 1
    assert "interlock db upgrade" in result.stderr


def test_a_database_that_does_not_answer_is_said_in_one_line(cli: Callable[..., Result]) -> None:
    result = cli("--database-url", "postgresql://nobody:secret@127.0.0.1:1/none", "list")
    assert result.exit_code == 1
    assert "--database-url" in result.stderr
    assert "secret" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_for_programs_an_error_is_a_json_document(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.error = CommandTimeout("c1", 10)
    document = json.loads(cli(*URL, "--json", "pause", RUN).stderr)
    assert document["error"] == "CommandTimeout"
    assert document["retryable"] is True
    assert "c1" in document["message"]


def test_debug_keeps_the_traceback(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.error = CommandTimeout("c1", 10)
    assert cli(*URL, "--debug", "pause", RUN).exception is client.error


def test_a_bug_is_not_dressed_up_as_an_error(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.error = KeyError("oops")
    assert isinstance(cli(*URL, "pause", RUN).exception, KeyError)
