"""What a step's message says, and what happens when it cannot be sent; real workers are in tests/worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from interlock.core.database.database import open_database
from interlock.core.events import Dispatch
from interlock.core.settings import Settings
from interlock.signals.dispatch.dispatcher import Dispatcher
from interlock.signals.dispatch.message_templates import message_options
from interlock.signals.step_header import HEADER, read_header
from tests.compiled_statements import SHARED_COMPILATION

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP_ID = "6a1c4a5e-0000-4000-8000-000000000002"


def _due(spec: dict[str, Any] | None = None, **fields: Any) -> Dispatch:
    values: dict[str, Any] = {
        "run_id": "6a1c4a5e-0000-4000-8000-000000000001",
        "session_id": "default",
        "step_id": STEP_ID,
        "key": "a",
        "task": "shop.pay",
        "task_id": f"{STEP_ID}.1",
        "attempt": 1,
        "celery_retries": 0,
    }
    return Dispatch(spec=spec or {}, **{**values, **fields})


class _Broker:
    """Takes what `send_task` is given, or fails."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.down = False

    def send_task(self, name: str, **options: Any) -> None:
        if self.down:
            raise OperationalError
        self.sent.append((name, options))


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app on an in-memory broker."""
    app = Celery("producer", broker="memory://", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def broker(app: Celery, monkeypatch: pytest.MonkeyPatch) -> _Broker:
    """What the app sends."""
    broker = _Broker()
    monkeypatch.setattr(app, "send_task", broker.send_task)
    return broker


@pytest.fixture
def dispatcher(app: Celery, migrated_sqlite_url: str) -> Iterator[Dispatcher]:
    """A dispatcher whose database holds no run."""
    database = open_database(migrated_sqlite_url, **SHARED_COMPILATION)
    yield Dispatcher(app, database, Settings(max_argument_bytes=100))
    database.dispose()


def test_identity_travels_in_one_header_beside_those_of_the_plan() -> None:
    options = message_options(_due({"options": {"headers": {"tenant": "x"}}}), grace_s=5)
    assert options["headers"]["tenant"] == "x"
    request = type("Request", (), {"headers": options["headers"]})()
    header = read_header(request)
    assert header is not None
    assert (header.step_id, header.key, header.attempt) == (STEP_ID, "a", 1)
    assert header.idempotency_key == STEP_ID


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        [],
        {},
        {"run_id": 1},
        {"run_id": "r", "step_id": "s", "session_id": "d", "key": "k", "attempt": "x"},
    ],
)
def test_a_header_that_is_not_ours_is_none(value: object) -> None:
    assert read_header(type("Request", (), {"headers": {HEADER: value}})()) is None


def test_routing_and_limits_are_the_plans_and_nothing_waits_on_the_broker() -> None:
    spec = {"queue": "slow", "priority": 3, "timeout_s": 10, "options": {"expires": 60, "countdown": 5}}
    options = message_options(_due(spec, celery_retries=2), grace_s=5)
    assert (options["queue"], options["priority"], options["expires"]) == ("slow", 3, 60)
    assert options["soft_time_limit"] == 10 < options["time_limit"]
    assert options["countdown"] is options["eta"] is None
    assert options["ignore_result"] is True
    assert (options["task_id"], options["retries"]) == (f"{STEP_ID}.1", 2)


def test_a_task_s_own_changed_arguments_are_data_and_not_evaluated(dispatcher: Dispatcher, broker: _Broker) -> None:
    text = {"$expr": "input.secret"}
    override = {"args": [text], "kwargs": {}}
    assert dispatcher.publish([_due({"args": [{"$expr": "results.b"}]}, override=override)]) == 1
    assert broker.sent[0][1]["args"] == [text]


def test_the_first_failure_of_the_broker_ends_the_round_and_is_said_once(
    dispatcher: Dispatcher, broker: _Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.down = True
    assert dispatcher.publish([_due(), _due()]) == 0
    assert dispatcher.publish([_due()]) == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    broker.down = False
    assert dispatcher.publish([_due(), _due()]) == 2
