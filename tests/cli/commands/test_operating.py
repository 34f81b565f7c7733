from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from interlock.cli.failures import ServerFailed
from interlock.core.errors import CommandTimeout, InterlockError, InvalidPlan, NotMigrated, TransitionNotAllowed
from tests.cli.conftest import RUN, step_document

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
    ("words", "call", "state"),
    [
        (("pause", RUN), ("pause", RUN, None, None, "interrupt"), "paused"),
        (
            ("pause", RUN, "--mode", "drain", "--reason", "bad feed"),
            ("pause", RUN, None, "bad feed", "drain"),
            "paused",
        ),
        (("resume", RUN, "--reason", "fixed"), ("resume", RUN, None, "fixed"), "executing"),
        (("cancel", RUN), ("cancel", RUN, None), "cancelled"),
    ],
    ids=["pause", "pause in a mode", "resume", "cancel"],
)
def test_a_verb_is_carried_out_and_answered_with_the_state(
    client: FakeClient,
    cli: Callable[..., Result],
    words: tuple[str, ...],
    call: tuple[Any, ...],
    state: str,
) -> None:
    result = cli(*URL, *words)
    assert result.exit_code == 0
    assert client.calls == [call]
    assert result.stdout == f"run {RUN} is {state}\n"
    client.run["status"] = state
    assert json.loads(cli(*URL, *words, "--json").stdout) == {"run_id": RUN, "status": state}


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_verb_on_one_step_is_answered_with_both_states(
    client: FakeClient,
    cli: Callable[..., Result],
    verb: str,
) -> None:
    client.run["steps"] = [step_document("pack", "waiting_approval")]
    result = cli(*URL, verb, RUN, "pack")
    assert client.calls[0][:3] == (verb, RUN, "pack")
    assert result.stdout.startswith("step pack is waiting approval, run ")
    assert json.loads(cli(*URL, verb, RUN, "pack", "--json").stdout)["step_status"] == "waiting_approval"


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


def test_a_run_of_nobody_is_refused(client: FakeClient, cli: Callable[..., Result]) -> None:  # noqa: ARG001 - knows RUN alone
    result = cli(*URL, "status", "other")
    assert result.exit_code == 1
    assert "no workflow run 'other'" in result.stderr


def test_an_unknown_mode_is_a_usage_error(client: FakeClient, cli: Callable[..., Result]) -> None:
    assert cli(*URL, "pause", RUN, "--mode", "gently").exit_code == 2
    assert client.calls == []
