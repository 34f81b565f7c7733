"""A client refuses tasks that its app does not know, unless it is told to leave that to the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery import Celery

from interlock import Client
from interlock.core.errors import InvalidPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAN = {"task_description": "d", "steps": [{"key": "a", "task": "elsewhere.defined"}]}


def here() -> None:
    """Do nothing."""


@pytest.fixture
def client_of(migrated_sqlite_url: str) -> Iterator[Callable[..., Client]]:
    """Makes a client of an app with one task of its own and a broker that keeps messages in memory."""
    clients: list[Client] = []

    def make(**settings: object) -> Client:
        app = Celery("known_tasks", broker="memory://", set_as_current=False)
        app.conf.update(interlock_database_url=migrated_sqlite_url, **settings)
        app.task(here, name="known_tasks.here", shared=False)
        clients.append(Client(app))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
        client.app.close()


def test_a_task_that_the_app_does_not_know_is_refused_by_name(client_of: Callable[..., Client]) -> None:
    client = client_of()
    with pytest.raises(InvalidPlan, match=r"unknown task \"elsewhere\.defined\""):
        client.enqueue(PLAN)
    assert client.list() == []


def test_a_producer_that_knows_only_some_tasks_can_leave_it_to_the_workers(client_of: Callable[..., Client]) -> None:
    client = client_of(interlock_check_tasks=False)
    assert client.status(client.enqueue(PLAN))["status"] == "executing"
