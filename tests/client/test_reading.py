"""What clients ask of runs, with a database and over the control queue."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from interlock import Client, Step, Workflow
from interlock.client import base, reading
from interlock.core.errors import CommandRefused, ConfigurationError, RunNotFound
from interlock.signals.control.admission import Admission, Admitted
from interlock.signals.control.handler import CommandHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.signals.control.command import Command

WORKFLOW = Workflow("trip", "Book a trip.", [Step("flight", "trips.flight"), Step("room", "trips.room")])


@pytest.fixture
def client(migrated_sqlite_url: str) -> Iterator[Client]:
    with Client(database_url=migrated_sqlite_url) as client:
        yield client


@pytest.fixture
def remote(client: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client without a database, whose commands reach the same one through JSON and admission."""
    admission = Admission(client.settings)
    handler = CommandHandler(client._open_runtime().database, client.settings, None)

    class Link:
        def __init__(self, *_: object) -> None: ...

        def handle(self, command: Command) -> dict[str, Any]:
            found = admission.read(json.dumps(command.document()))
            assert isinstance(found, Admitted), found
            answer: dict[str, Any] = json.loads(json.dumps(handler.handle(found.command, found.args)))
            return answer

    monkeypatch.setattr(base, "ControlLink", Link)
    return Client(broker_url="memory://")


def test_both_ways_give_the_same(client: Client, remote: Client) -> None:
    run_id = client.enqueue(WORKFLOW)
    client.cancel(run_id, reason="rain")
    history = client.history(run_id)
    assert [change.seq for change in history] == list(range(1, client.status(run_id)["seq"] + 1))
    assert remote.history(run_id) == history
    assert remote.history(run_id, after_seq=3) == history[3:]
    assert remote.status(run_id) == client.status(run_id)
    assert remote.list(status="cancelled") == client.list(status="cancelled") != []
    kinds = [[reason["kind"] for reason in each.explain(run_id)["reasons"]] for each in (remote, client)]
    assert kinds == [["cancelled"]] * 2  # the words say how long ago it was


def test_a_history_is_as_many_readings_as_it_has_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = client.enqueue(WORKFLOW)
    history = client.history(run_id)
    monkeypatch.setattr(reading, "PAGE", 2)
    assert client.history(run_id) == history
    assert len(history) > 2


def test_what_is_not_there_is_an_error_both_ways(client: Client, remote: Client) -> None:
    run_id = client.enqueue(WORKFLOW)
    for each in (client, remote):
        with pytest.raises(RunNotFound):
            each.history("7d0c2f6e-0000-4000-8000-000000000001")
        with pytest.raises(CommandRefused, match="step room is pending and has no result"):
            each.result(run_id, "room")
        with pytest.raises(CommandRefused, match="there is no step 'train'"):
            each.result(run_id, "train")


def test_to_follow_a_whole_session_takes_a_database(remote: Client) -> None:
    with pytest.raises(ConfigurationError, match="database_url"):
        next(remote.watch_session())
