"""The command line, every command of it: with another `--session` there is no such run. A new command has to enter a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

import click
import pytest
from click.testing import CliRunner

from interlock.cli.main import interlock
from tests.isolation.stage import OURS, THEIRS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

    from tests.isolation.stage import Stage

RUNS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "status": ("executing", ()),
    "watch": ("completed", ()),
    "history": ("executing", ()),
    "result": ("completed", ("a",)),
    "explain": ("executing", ()),
    "graph": ("executing", ()),
    "pause": ("executing", ()),
    "resume": ("paused", ()),
    "cancel": ("executing", ()),
    "approve": ("waiting", ("a",)),
    "reject": ("waiting", ("a",)),
    "retry": ("failed", ("a",)),
    "settle": ("failed", ("a", "1", "--reason", "by hand")),
    "rerun": ("ended", ()),
}
CONCERNS_NO_RUN: Final = {
    "dev": "starts servers",
    "doctor": "looks at settings and servers, for whoever runs them; of work it tells numbers",
    "run": "makes a run, in the session that is named",
    "list": "lists a session's runs, tested apart",
    "validate": "reads files",
    "completion": "prints a script",
    "db upgrade": "for whoever owns the tables",
    "db current": "for whoever owns the tables",
    "db check": "for whoever owns the tables",
    "verify": "replays the histories of all sessions, for whoever owns the database; it prints ids and states, no payload",
}


def _commands(group: click.Group, prefix: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


def _run(stage: Stage, session: str, *words: str) -> Result:
    url = stage.database.engine.url.render_as_string(hide_password=False)
    return CliRunner().invoke(interlock, [*words, "--session", session, "--database-url", url])


def test_every_command_is_in_a_table() -> None:
    assert set(RUNS) | set(CONCERNS_NO_RUN) == set(_commands(interlock))


@pytest.mark.parametrize("as_json", [False, True], ids=["words", "json"])
@pytest.mark.parametrize("command", RUNS)
def test_with_another_session_a_command_has_no_such_run(stage: Stage, command: str, as_json: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    state, words = RUNS[command]
    run_id, missing = stage.run_in(state), str(uuid4())
    options = (*words, *(["--json"] if as_json else []))
    before = stage.picture()
    existing, absent = (_run(stage, THEIRS, command, run, *options) for run in (run_id, missing))
    assert existing.exit_code == absent.exit_code == 1
    assert existing.output.replace(run_id, "RUN") == absent.output.replace(missing, "RUN")
    assert "no workflow run" in existing.output
    assert stage.picture() == before
    ours = _run(stage, OURS, command, run_id, *options)
    assert ours.exit_code == 0, ours.output


def test_a_list_shows_nothing_of_another_session(stage: Stage) -> None:
    run_id = stage.run_in("executing")
    assert run_id in _run(stage, OURS, "list").output
    for options in ((), ("--json",), ("--status", "executing"), ("--name", "red-run")):
        theirs = _run(stage, THEIRS, "list", *options)
        assert theirs.exit_code == 0
        assert run_id not in theirs.output
        assert "red-run" not in theirs.output
