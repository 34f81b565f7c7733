"""What `explain` adds from the broker: queues that nobody consumes, workers that are not there, a broker that is away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from interlock import Client, Step, Workflow
from interlock.core.errors import RunNotFound
from interlock.core.queries.explain import explain
from interlock.signals.dispatch.broker_inspection import add_broker_facts
from tests.celery_worker import CeleryWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.servers import RedisServer

_BOUND_S = (
    5.0  # the product's is under 2 s, to which a busy machine adds; a client library without a bound waits longer
)
_PATIENT_S = 6.0  # where an answer is expected, however busy the machine is

PLAIN_APP = """\
import os
from celery import Celery
app = Celery("plain", broker=os.environ["BROKER"], broker_connection_retry_on_startup=True)
"""


def _body() -> None:
    """Nobody runs it."""


@pytest.fixture
def app(broker_url: str) -> Celery:
    """An app with two tasks, one of which is routed to a queue of its own."""
    app = Celery("shop", broker=broker_url, set_as_current=False)
    app.conf.task_routes = {"facts.slow": {"queue": "slow"}}
    for name in ("facts.slow", "facts.quick"):
        app.task(_body, name=name)
    return app


@pytest.fixture
def client(app: Celery, migrated_sqlite_url: str) -> Iterator[Client]:
    """A client with the app at hand."""
    with Client(app, database_url=migrated_sqlite_url) as client:
        yield client


@pytest.fixture
def other_worker(broker_url: str, tmp_path: Path) -> Iterator[CeleryWorker]:
    """A worker of another project, on the queue `other` of the same broker."""
    (tmp_path / "plain.py").write_text(PLAIN_APP)
    args = ("--pool", "solo", "-Q", "other")
    worker = CeleryWorker("plain", log=tmp_path / "plain.log", env={"BROKER": broker_url}, args=args, cwd=tmp_path)
    worker.start()
    yield worker
    worker.kill()


def _enqueue(client: Client, *steps: Step) -> str:
    return client.enqueue(Workflow("w", "x", list(steps)))


def _kinds(explained: dict[str, Any]) -> dict[str, Any]:
    return {reason["kind"]: reason for reason in explained["reasons"]}


def _explain(client: Client, run_id: str) -> dict[str, Any]:
    """As the client does it, with more time for the answers."""
    with client._open_runtime().database.reading() as connection:
        explained = explain(connection, run_id, client.session_id)
    return add_broker_facts(client.app, explained, timeout_s=_PATIENT_S)


def test_with_no_worker_explain_says_so_with_the_queue_and_what_to_type(client: Client) -> None:
    run_id = _enqueue(client, Step("a", "facts.slow"), Step("b", "facts.slow"))
    explained = _explain(client, run_id)
    reason = explained["reasons"][0]
    assert (reason["kind"], reason["queue"], reason["length"], reason["workers"]) == ("no_worker", "slow", 2, [])
    assert "Queue slow holds 2 messages" in reason["text"]
    assert reason["text"].endswith("celery -A your_app worker -Q slow")
    assert explained["summary"].endswith("No worker answered within 2.7 s.")
    queued = [reason for reason in explained["reasons"] if reason["kind"] == "queued"]
    assert [reason["queue"] for reason in queued] == ["slow", "slow"]
    assert all("waits in queue slow for a worker" in reason["text"] for reason in queued)


def test_a_queue_that_nobody_consumes_is_told_from_one_that_is_only_busy(
    client: Client, other_worker: CeleryWorker
) -> None:
    run_id = _enqueue(client, Step("a", "facts.slow"), Step("b", "facts.quick", queue="other"))
    explained = _explain(client, run_id)
    reasons = _kinds(explained)
    assert reasons["no_consumer"]["queue"] == "slow"
    assert f"There are {other_worker.node} (other)" in reasons["no_consumer"]["text"]
    assert (reasons["queue"]["queue"], reasons["queue"]["workers"]) == ("other", [other_worker.node])
    assert "No worker that answered consumes queue slow" in explained["summary"]


def test_the_client_asks_the_broker_of_its_app(client: Client) -> None:
    run_id = _enqueue(client, Step("a", "facts.quick"))
    began = time.monotonic()
    kinds = _kinds(client.explain(run_id))
    assert time.monotonic() - began < _BOUND_S
    assert {"no_worker", "no_broker"} & kinds.keys()  # the latter where even a second is not enough for this machine


def test_a_broker_that_hangs_costs_a_bounded_time(
    client: Client, broker_url: str, hanging: Callable[[], AbstractContextManager[None]]
) -> None:
    run_id = _enqueue(client, Step("a", "facts.quick"))
    client.close()
    app = Celery("shop", broker=broker_url, set_as_current=False)
    with Client(app, database_url=client.settings.database_url) as second, hanging():
        began = time.monotonic()
        explained = second.explain(run_id)
        assert time.monotonic() - began < _BOUND_S
    assert explained["reasons"][0]["kind"] == "no_broker"
    assert explained["reasons"][1]["kind"] == "queued"


def test_a_broker_that_is_down_is_said_to_be(client: Client, redis_server: RedisServer) -> None:
    run_id = _enqueue(client, Step("a", "facts.quick"))
    redis_server.stop()
    explained = client.explain(run_id)
    assert explained["reasons"][0]["kind"] == "no_broker"
    assert "The broker gave no answer within 1.8 s." in explained["summary"]


def test_nobody_is_asked_where_no_step_waits_in_a_queue(app: Celery) -> None:
    app.conf.broker_url = "redis://127.0.0.1:1/0"
    explained = {"summary": "x", "reasons": [{"kind": "paused", "step": None, "text": "y"}]}
    assert add_broker_facts(app, explained) is explained


def test_a_client_without_an_app_explains_from_the_database_alone(client: Client) -> None:
    run_id = _enqueue(client, Step("a", "facts.quick"))
    with Client(database_url=client.settings.database_url) as bare:
        assert list(_kinds(bare.explain(run_id))) == ["queued"]
        with pytest.raises(RunNotFound):
            bare.explain("00000000-0000-0000-0000-000000000000")
