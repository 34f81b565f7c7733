"""What every client has: an address, a session, an actor, and somebody who sends what is due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock import Client, Step, Workflow
from interlock.client import base
from interlock.core.errors import BrokerUnavailable, ConfigurationError, InvalidName, RunNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.signals.control.command import Command

PLAN = Workflow("far", "From far away.", [Step("a", "t.a"), Step("g", approval=True)])


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch) -> list[Command]:
    """What clients send without waiting for an answer."""
    sent: list[Command] = []

    class Link:
        def __init__(self, *_: object) -> None: ...

        def send(self, command: Command) -> None:
            sent.append(command)

    monkeypatch.setattr(base, "ControlLink", Link)
    return sent


@pytest.fixture
def without_routes(migrated_sqlite_url: str) -> Iterator[Client]:
    """A client that has a database and a broker, and no app that says where tasks are routed."""
    with Client(database_url=migrated_sqlite_url, broker_url="memory://", actor="ada") as client:
        yield client


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({}, ConfigurationError, "a Celery app, a database_url or a broker_url"),
        ({"broker_url": "memory://", "session_id": "a b"}, InvalidName, "session_id"),
        ({"broker_url": "redis://host:port/0"}, ConfigurationError, "broker_url: it cannot be used"),
    ],
    ids=["no address", "no session", "no broker"],
)
def test_a_client_that_could_reach_nothing_is_refused(
    arguments: dict[str, Any], error: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INTERLOCK_DATABASE_URL", raising=False)
    with pytest.raises(error, match=said):
        Client(**arguments)


def test_a_closed_client_opens_its_connections_again(migrated_sqlite_url: str) -> None:
    client = Client(database_url=migrated_sqlite_url)
    run_id = client.enqueue(PLAN)
    for _ in range(2):
        client.close()
        assert client.status(run_id)["status"] == "executing"
    client.close()


def test_without_routes_a_client_has_an_engine_send_what_its_verbs_make_due(
    without_routes: Client, hints: list[Command]
) -> None:
    client = without_routes
    run_id = client.enqueue(PLAN)
    client.pause(run_id)
    client.resume(run_id)
    client.approve(run_id, "g")
    client.cancel(run_id)
    again = client.rerun(run_id)
    assert {(hint.command, hint.actor) for hint in hints} == {("dispatch", "ada")}
    assert [hint.workflow_id for hint in hints] == [run_id, run_id, run_id, again], "enqueue, resume, approve, rerun"


def test_a_refused_verb_gives_no_hint(without_routes: Client, hints: list[Command]) -> None:
    with pytest.raises(RunNotFound):
        without_routes.resume("7d0c2f6e-0000-4000-8000-000000000001")
    assert hints == []


def test_a_hint_that_cannot_be_sent_is_no_error(without_routes: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        def __init__(self, *_: object) -> None: ...

        def send(self, command: Command) -> None:
            raise BrokerUnavailable(command.id, "OSError")

    monkeypatch.setattr(base, "ControlLink", Away)
    assert without_routes.enqueue(PLAN)


def test_a_client_with_a_database_alone_tells_nobody(migrated_sqlite_url: str, hints: list[Command]) -> None:
    with Client(database_url=migrated_sqlite_url) as client:
        client.enqueue(PLAN)
    assert hints == []
