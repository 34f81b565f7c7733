"""Commands carried out: each once, with an outcome that stays, and nothing told of another session's runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import WorkflowController, open_database
from interlock.core.queries import answers
from interlock.core.settings import Settings
from interlock.signals.control.command import parse_args, parse_fields
from interlock.signals.control.handler import CommandHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core import Database

PLAN = [{"key": "a", "task": "t.a"}]


class Engine:
    """A database, and a handler of commands for it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._handler = CommandHandler(database, Settings(), None)

    def ask(self, verb: str, run_id: str | None = None, *, fresh: bool = False, **fields: Any) -> dict[str, Any]:
        """The outcome of a command."""
        command = parse_fields({"id": "c1", "command": verb, "workflow_id": run_id, **fields})
        return self._handler.handle(command, parse_args(command), fresh=fresh)

    def enqueue(self, session_id: str = "default") -> str:
        """A run that executes."""
        with self.database.session() as session:
            controller = WorkflowController(session, session_id, settings=Settings())
            return controller.enqueue_workflow(PLAN, task_description="Be there.")

    def status(self, run_id: str) -> str:
        """The state of a run."""
        with self.database.reading() as connection:
            return str(answers.status(connection, "default", run_id)["status"])


@pytest.fixture
def engine(migrated_url: str) -> Iterator[Engine]:
    """On either database."""
    database = open_database(migrated_url)
    yield Engine(database)
    database.dispose()


def test_the_same_id_again_is_answered_with_the_first_outcome_and_acts_once(engine: Engine) -> None:
    args = {"plan": PLAN, "task_description": "Be there.", "name": "raw"}
    first, second = engine.ask("enqueue", args=args), engine.ask("enqueue", args=args)
    assert first["ok"]
    assert first == second
    assert engine.ask("enqueue", args=args, session_id="other")["result"] != first["result"], "ids are a session's own"
    assert [run["run_id"] for run in engine.ask("list")["result"]] == [first["result"]]


def test_a_refusal_is_an_outcome_too(engine: Engine) -> None:
    run_id = engine.enqueue()
    refused = engine.ask("resume", run_id)
    assert (refused["ok"], refused["error"]["type"]) == (False, "TransitionNotAllowed")
    assert engine.ask("pause", run_id, id="c2") == {"ok": True, "result": None}
    assert engine.ask("resume", run_id) == refused, "the same id asks for what was refused"
    assert engine.ask("resume", run_id, id="c3")["ok"]


def test_what_a_refused_command_had_done_is_undone(engine: Engine) -> None:
    """Refused behind its first moves: the run was made before its plan turned out to name no description."""
    assert engine.ask("enqueue", args={"plan": PLAN})["error"]["type"] == "GuardRefused"
    assert engine.ask("list")["result"] == []


def test_who_asks_and_why_is_in_the_history(engine: Engine) -> None:
    run_id = engine.enqueue()
    assert engine.ask("cancel", run_id, actor="ada", reason="tea")["ok"]
    last = engine.ask("replay", run_id)["result"][-1]["data"]
    assert (last["to_state"], last["transitioned_by"], last["reason"]) == ("cancelled", "ada", "tea")


def test_a_question_is_answered_anew_each_time(engine: Engine) -> None:
    run_id = engine.enqueue()
    assert engine.ask("explain", run_id)["result"]["status"] == "executing"
    assert engine.ask("cancel", run_id, id="c2")["ok"]
    assert engine.ask("explain", run_id)["result"]["status"] == "cancelled"


def test_a_command_that_was_decided_on_an_old_state_is_refused(engine: Engine) -> None:
    run_id = engine.enqueue()
    seq = engine.ask("status", run_id)["result"]["seq"]
    stale = engine.ask("cancel", run_id, if_seq=seq - 1)
    assert (stale["ok"], stale["error"]["fields"]["code"]) == (False, "stale")
    assert engine.status(run_id) == "executing"
    assert engine.ask("cancel", run_id, id="c2", if_seq=seq)["ok"]


@pytest.mark.parametrize("if_seq", [None, 0, 3])
def test_a_stale_command_for_another_sessions_run_learns_nothing_of_it(engine: Engine, if_seq: int | None) -> None:
    """`if_seq` is compared with runs of the command's own session alone: the answer would tell how far the run is."""
    run_id = engine.enqueue("hers")
    outcome = engine.ask("cancel", run_id, session_id="his", if_seq=if_seq)
    assert outcome["error"]["type"] == "RunNotFound"
    assert "seq" not in outcome["error"]["message"]
