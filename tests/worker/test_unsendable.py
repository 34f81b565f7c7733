"""Messages that cannot be sent: one that never can be does not hold up the others, and a broker that is away costs no backoff."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError
from sqlalchemy import select, update

from interlock.core import WorkflowController, open_database
from interlock.core.database.tables import WorkflowStep
from interlock.core.database.types import seconds_after
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper
from interlock.signals.dispatch.dispatcher import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Row

    from interlock.core import Database

_steps = WorkflowStep.__table__
_SETTINGS = Settings(sweep_s=1, redispatch_s=60)


class Broker:
    """An app whose messages are kept here instead of sent."""

    def __init__(self) -> None:
        self.app = Celery("producer", broker="memory://", set_as_current=False)
        self.app.conf.update(task_create_missing_queues=False, task_queues=[Queue("celery")])
        self.sent: list[str] = []
        self.down = False
        self._send = self.app.send_task
        self.app.send_task = self.send  # type: ignore[method-assign]

    def send(self, name: str, **options: Any) -> None:
        if self.down:
            raise OperationalError("connection refused")
        options = {**options, "producer": None}
        self.app.amqp.router.route({"queue": options.get("queue") or "celery"}, name)  # as Celery does, before it sends
        self.sent.append(name)


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker."""
    broker = Broker()
    yield broker
    broker.app.close()


@pytest.fixture
def database(migrated_sqlite_url: str, broker: Broker) -> Iterator[Database]:
    """A database whose commits are dispatched to the broker."""
    database = open_database(migrated_sqlite_url)
    database.after_commit.append(Dispatcher(broker.app, database, _SETTINGS))
    yield database
    database.dispose()


def _enqueue(database: Database, *plan: dict[str, Any]) -> str:
    with database.session() as session:
        controller = WorkflowController(session, settings=_SETTINGS)
        return controller.enqueue_workflow(list(plan), task_description="Be sent.")


def _rows(database: Database) -> dict[str, Row[Any]]:
    wait_s = (_steps.c.dispatch_check_at < seconds_after(5)).label("is_due_soon")
    with database.reading() as connection:
        return {row.key: row for row in connection.execute(select(_steps.c.key, _steps.c.dispatches, wait_s))}


def _all_due(database: Database) -> None:
    database.transact(
        lambda connection, _: connection.execute(update(_steps).values(dispatch_check_at=seconds_after(-1)))
    )


def test_a_message_that_cannot_be_sent_does_not_hold_up_the_others(database: Database, broker: Broker) -> None:
    """A queue that does not exist, first of a batch: at the enqueue, and at every sweep."""
    lost = {"key": "lost", "task": "t.lost", "queue": "nowhere"}
    _enqueue(database, lost, {"key": "a", "task": "t.a"}, {"key": "b", "task": "t.b"})
    assert broker.sent == ["t.a", "t.b"]
    _all_due(database)
    Sweeper(database, _SETTINGS).sweep()
    assert broker.sent == ["t.a", "t.b"] * 2


def test_what_a_broker_did_not_take_is_due_at_the_next_sweep(database: Database, broker: Broker) -> None:
    """However long it was away: nothing was sent, so nothing doubles the time to the next try."""
    broker.down = True
    _enqueue(database, {"key": "a", "task": "t.a"}, {"key": "b", "task": "t.b"})
    sweeper = Sweeper(database, _SETTINGS)
    for _ in range(8):
        _all_due(database)
        sweeper.sweep()
    assert {key: (row.dispatches, bool(row.is_due_soon)) for key, row in _rows(database).items()} == {
        "a": (0, True),
        "b": (0, True),
    }
    broker.down = False
    _all_due(database)
    sweeper.sweep()
    assert sorted(broker.sent) == ["t.a", "t.b"]
    assert {(row.dispatches, bool(row.is_due_soon)) for row in _rows(database).values()} == {(1, False)}
