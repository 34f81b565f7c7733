"""Enqueue, create, set_plan, start: the forms of a plan, and the caller's own transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock import Client, Step, Workflow
from interlock.core import open_database

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKFLOW = Workflow("invoice", "Bill an order.", [Step("bill", "invoices.bill", args=[{"$expr": "input.order"}])])


@pytest.fixture
def client(migrated_sqlite_url: str) -> Iterator[Client]:
    with Client(database_url=migrated_sqlite_url) as client:
        yield client


@pytest.mark.parametrize("form", [WORKFLOW, WORKFLOW.plan, WORKFLOW.to_dict()], ids=["workflow", "plan", "document"])
def test_a_plan_may_have_any_form(client: Client, form: Any) -> None:
    status = client.status(client.enqueue(form, {"order": 12}))
    assert (status["name"], status["task_description"], status["status"]) == ("invoice", "Bill an order.", "executing")
    assert [step["key"] for step in status["steps"]] == ["bill"]
    run_id = client.create("Bill an order.", reason="by hand")
    client.set_plan(run_id, form)
    client.start(run_id)
    assert client.status(run_id)["status"] == "executing"
    assert [change.reason for change in client.history(run_id)][:2] == ["created", "by hand"]


def test_without_a_database_a_plan_travels_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(
        Client, "_outcome", lambda _, command, **__: sent.append(command) or {"ok": True, "result": "r"}
    )
    client = Client(broker_url="memory://")
    client.enqueue(WORKFLOW)
    client.set_plan("r", WORKFLOW.plan)
    assert [command.args["plan"] for command in sent] == [WORKFLOW.plan.document()] * 2


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_run_of_the_callers_transaction_is_there_when_that_is_committed(
    client: Client, migrated_sqlite_url: str, end: str
) -> None:
    database = open_database(migrated_sqlite_url)
    with database.session() as session:
        run_id = client.enqueue(WORKFLOW, {"order": 12}, db_session=session)
        assert [run["run_id"] for run in client.list()] == [], "not yet"
        getattr(session, end)()
    database.dispose()
    assert [run["run_id"] for run in client.list()] == ([run_id] if end == "commit" else [])
