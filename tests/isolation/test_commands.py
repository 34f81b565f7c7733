"""The control queue and the client: every verb, asked for by another session. A verb that is not in the table fails the test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest

from interlock import Client
from interlock.core import open_database
from interlock.core.errors import InterlockError, RunNotFound
from interlock.signals.control.verbs import VERBS as TABLE
from tests.compiled_statements import SHARED_COMPILATION
from tests.isolation.stage import OURS, PLAN, THEIRS, LocalLink, Stage, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Verb → a state in which it applies, and its arguments.
VERBS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "enqueue": ("executing", {"plan": PLAN, "task_description": "Blue.", "idempotency_key": "once"}),
    "create": ("executing", {"task_description": "Blue."}),
    "set_plan": ("planning", {"plan": PLAN}),
    "start": ("planned", {}),
    "pause": ("executing", {}),
    "resume": ("paused", {}),
    "cancel": ("executing", {}),
    "approve": ("waiting", {"step": "a"}),
    "reject": ("waiting", {"step": "a"}),
    "retry": ("failed", {"step": "a"}),
    "settle": ("failed", {"step": "a", "result": 1}),
    "rerun": ("ended", {}),
    "dispatch": ("overdue", {}),
    "replay": ("executing", {}),
    "status": ("executing", {}),
    "result": ("completed", {"step": "a"}),
    "list": ("executing", {}),
    "explain": ("executing", {}),
}

CLIENT: Final[dict[str, tuple[str, Callable[[Client, str], Any]]]] = {
    "set_plan": ("planning", lambda client, run: client.set_plan(run, PLAN)),
    "start": ("planned", lambda client, run: client.start(run)),
    "pause": ("executing", lambda client, run: client.pause(run)),
    "resume": ("paused", lambda client, run: client.resume(run)),
    "cancel": ("executing", lambda client, run: client.cancel(run)),
    "approve": ("waiting", lambda client, run: client.approve(run, "a")),
    "reject": ("waiting", lambda client, run: client.reject(run, "a")),
    "retry": ("failed", lambda client, run: client.retry(run, "a")),
    "settle": ("failed", lambda client, run: client.settle(run, "a", 1, "by hand")),
    "rerun": ("ended", lambda client, run: client.rerun(run)),
    "status": ("executing", lambda client, run: client.status(run)),
    "result": ("completed", lambda client, run: client.result(run, "a")),
    "explain": ("executing", lambda client, run: client.explain(run)),
    "history": ("executing", lambda client, run: client.history(run)),
    "watch": ("completed", lambda client, run: list(client.watch(run, timeout_s=10))),
    "awatch": ("completed", lambda client, run: asyncio.run(_all(client.awatch(run, timeout_s=10)))),
    "wait": ("completed", lambda client, run: client.wait(run, timeout_s=10)),
}
CONCERNS_NO_RUN: Final = {"enqueue", "create", "list", "close", "watch_session", "awatch_session"}


async def _all(changes: Any) -> list[Any]:
    return [change async for change in changes]


@pytest.fixture
def either_stage(migrated_url: str) -> Iterator[Stage]:
    """A stage on a database of each kind."""
    database = open_database(migrated_url, **SHARED_COMPILATION)
    yield Stage(database)
    database.dispose()


def test_every_verb_is_in_the_table() -> None:
    assert set(VERBS) == set(TABLE)


def test_every_method_of_the_client_is_in_a_table() -> None:
    methods = {name for name in dir(Client) if not name.startswith("_") and callable(getattr(Client, name))}
    assert set(CLIENT) | CONCERNS_NO_RUN == methods


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_of_another_session_shows_and_moves_nothing(either_stage: Stage, verb: str) -> None:
    stage = either_stage
    state, args = VERBS[verb]
    run_id, missing = stage.run_in(state), str(uuid4())
    before = stage.picture()
    existing = stage.command(verb, run_id, THEIRS, args)
    assert stage.picture() == before
    if TABLE[verb].needs_run:
        absent = stage.command(verb, missing, THEIRS, args)
        assert str(existing).replace(run_id, "RUN") == str(absent).replace(missing, "RUN")
        assert existing == {"ok": True, "result": []} or existing["error"]["type"] == "RunNotFound"
    shown = str(existing).replace(run_id, "RUN")
    assert not any(word in shown for word in ("red-run", "red-input", "red-result", "A red errand"))
    assert stage.command(verb, run_id, OURS, args)["ok"], "in its own session it would have succeeded"


def test_what_is_due_is_sent_again_for_its_own_session(either_stage: Stage) -> None:
    stage = either_stage
    run_id = stage.run_in("overdue")
    assert stage.command("dispatch", None, THEIRS, {})["ok"]
    assert stage.command("dispatch", run_id, THEIRS, {})["ok"]
    assert stage.command("dispatch", stage.run_in("executing"), OURS, {})["ok"]
    assert not stage.worker.queue
    assert stage.command("dispatch", run_id, OURS, {})["ok"]
    assert {dispatch.run_id for dispatch in stage.worker.queue} == {run_id}


def test_lists_and_keys_are_a_sessions_own(stage: Stage) -> None:
    ours = stage.command("enqueue", None, OURS, VERBS["enqueue"][1])["result"]
    theirs = stage.command("enqueue", None, THEIRS, VERBS["enqueue"][1])["result"]
    assert ours != theirs
    for session, run_id in ((OURS, ours), (THEIRS, theirs)):
        assert [run["run_id"] for run in stage.command("list", None, session, {})["result"]] == [run_id]


@pytest.mark.parametrize("way", ["with a database", "over the control queue"])
@pytest.mark.parametrize("method", CLIENT)
def test_a_client_of_another_session_has_no_such_run(
    stage: Stage, method: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, call = CLIENT[method]
    run_id, missing = stage.run_in(state), str(uuid4())
    before = stage.picture()
    if way == "with a database":
        address = {"database_url": stage.database.engine.url.render_as_string(hide_password=False)}
    else:
        monkeypatch.setattr("interlock.client.base.ControlLink", lambda *_: LocalLink(stage))
        address = {"broker_url": "memory://"}
    with Client(**address, session_id=THEIRS, settings=stage.settings) as theirs:  # type: ignore[arg-type]
        errors = []
        for run in (run_id, missing):
            with pytest.raises(InterlockError) as refused:
                call(theirs, run)
            errors.append(told(refused.value, run))
            assert isinstance(refused.value, RunNotFound)
        assert theirs.list() == []
    assert errors[0] == errors[1]
    assert stage.picture() == before
    with Client(**address, session_id=OURS, settings=stage.settings) as ours:  # type: ignore[arg-type]
        call(ours, run_id)
