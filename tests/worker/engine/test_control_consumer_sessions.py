"""A command sees no run of another session, whatever it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import WorkflowController, open_database
from interlock.core.settings import Settings
from interlock.signals.control.command import parse_args, parse_fields
from interlock.signals.control.handler import CommandHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core import Database


@pytest.fixture
def database(migrated_sqlite_url: str) -> Iterator[Database]:
    """A database of its own."""
    database = open_database(migrated_sqlite_url)
    yield database
    database.dispose()


@pytest.mark.parametrize("if_seq", [None, 0, 3])
def test_a_stale_command_for_another_sessions_run_learns_nothing_of_it(database: Database, if_seq: int | None) -> None:
    """`if_seq` is compared with runs of the command's own session alone: the answer would tell how far the run is."""
    with database.session() as session:
        controller = WorkflowController(session, "hers", settings=Settings())
        run_id = controller.enqueue_workflow([{"key": "a", "task": "t.a"}], task_description="Be hers.")
    command = {"id": "c1", "command": "cancel", "session_id": "his", "workflow_id": run_id, "if_seq": if_seq}
    read = parse_fields(command)
    outcome = CommandHandler(database, Settings(), None).handle(read, parse_args(read))
    assert outcome["error"]["type"] == "RunNotFound"
    assert "seq" not in outcome["error"]["message"]
