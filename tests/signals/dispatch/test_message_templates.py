"""A copied message says what Celery would have said, and where every message is somebody's business none is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, signals

from interlock.core.events import Dispatch
from interlock.core.settings import Settings
from interlock.signals.dispatch.message_templates import StepMessages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kombu import Producer

RUN_ID = "6a1c4a5e-0000-4000-8000-000000000001"


def _due(number: int, spec: dict[str, Any] | None = None, task: str = "shop.pay") -> Dispatch:
    step_id = f"6a1c4a5e-0000-4000-8000-{number:012}"
    return Dispatch(RUN_ID, "default", step_id, f"k{number}", task, f"{step_id}.1", 1, number, spec or {})


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app on an in-memory broker, with a queue and a route of its own."""
    app = Celery("producer", broker="memory://", set_as_current=False)
    app.conf.task_routes = {"shop.*": {"queue": "shop", "priority": 4}}
    yield app
    app.close()


@pytest.fixture
def producer(app: Celery) -> Iterator[Producer]:
    """A producer of the app's pool."""
    with app.producer_or_acquire() as producer:
        yield producer


@pytest.fixture
def built(app: Celery, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the messages that Celery has built."""
    ids: list[str] = []
    send_task: Callable[..., Any] = app.send_task

    def counted(name: str, **options: Any) -> Any:
        ids.append(options["task_id"])
        return send_task(name, **options)

    monkeypatch.setattr(app, "send_task", counted)
    return ids


def _fetched(app: Celery, queue: str) -> list[dict[str, Any]]:
    """Everything in a queue, as it lies there; without what differs between any two messages."""
    found = []
    with app.connection_for_read() as connection, connection.SimpleQueue(queue) as simple:
        while simple.qsize():
            message = simple.get(block=False)
            message.ack()
            properties = {name: value for name, value in message.properties.items() if name != "delivery_tag"}
            found.append({"payload": message.payload, "headers": message.headers, "properties": properties})
    return found


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"priority": 7, "timeout_s": 10},
        {"options": {"headers": {"tenant": "x"}, "shadow": "paying"}},
    ],
)
def test_a_copy_is_the_message_that_celery_would_have_built(
    app: Celery, producer: Producer, built: list[str], spec: dict[str, Any]
) -> None:
    messages = StepMessages(app, Settings())
    messages.send(_due(1, spec), ["a"], {}, producer)
    messages.send(_due(2, spec), [{"b": "ü"}, None], {"c": 1.5}, producer)
    StepMessages(app, Settings()).send(_due(2, spec), [{"b": "ü"}, None], {"c": 1.5}, producer)
    _, copied, original = _fetched(app, "shop")
    assert copied == original
    assert copied["headers"]["id"] == copied["properties"]["correlation_id"] == _due(2).task_id
    assert built == [_due(1).task_id, _due(2).task_id]


def test_each_kind_is_built_once(app: Celery, producer: Producer, built: list[str]) -> None:
    messages = StepMessages(app, Settings())
    kinds = ({}, {"priority": 1}, {"queue": "else"}, {"timeout_s": 5}, {"options": {"shadow": "x"}})
    for _ in range(3):
        for number, spec in enumerate(kinds):
            messages.send(_due(number, spec), [], {}, producer)
    assert len(built) == len(kinds)
    assert len(_fetched(app, "else")) == 3


@pytest.mark.parametrize("why", ["a router is code", "somebody listens", "it expires", "payloads are shown"])
def test_where_every_message_is_somebodys_business_celery_builds_every_message(
    app: Celery, producer: Producer, built: list[str], why: str
) -> None:
    heard: list[str] = []

    def listener(headers: dict[str, Any], **_: Any) -> None:
        heard.append(headers["id"])

    if why == "a router is code":
        app.conf.task_routes = (lambda name, args, kwargs, options, task=None, **kw: {"queue": "shop"},)  # noqa: ARG005
    if why == "somebody listens":
        signals.before_task_publish.connect(listener)
    messages = StepMessages(app, Settings(show_payloads=why == "payloads are shown"))
    try:
        for number in range(3):
            spec = {"options": {"expires": 60}} if why == "it expires" else {}
            messages.send(_due(number, spec), [], {}, producer)
    finally:
        signals.before_task_publish.disconnect(listener)
    assert len(built) == 3
    assert len(heard) == (3 if why == "somebody listens" else 0)
