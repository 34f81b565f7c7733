"""A client refuses tasks that its app does not know, unless it is told to leave that to the workers."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from celery import Celery, shared_task

from interlock import Client
from interlock.core.errors import InvalidPlan
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLAN = {"task_description": "d", "steps": [{"key": "a", "task": "elsewhere.defined"}]}

other = Celery("other", broker="memory://", set_as_current=False)


@other.task
def of_another_app() -> None:
    """Do nothing."""


@shared_task
def of_whichever_app() -> None:
    """Do nothing."""


def here() -> None:
    """Do nothing."""


@pytest.fixture
def client_of(migrated_sqlite_url: str) -> Iterator[Callable[..., Client]]:
    """Makes a client of an app with these tasks of its own and a broker that keeps messages in memory."""
    clients: list[Client] = []

    def make(*tasks: Callable[[], None], **settings: object) -> Client:
        app = Celery("known_tasks", broker="memory://", set_as_current=False)
        app.conf.update(interlock_database_url=migrated_sqlite_url, **settings)
        for task in tasks:
            app.task(task, name="known_tasks.here", shared=False)
        clients.append(Client(app))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
        client.app.close()


def test_a_task_that_the_app_does_not_know_is_refused_by_name(client_of: Callable[..., Client]) -> None:
    client = client_of(here)
    with pytest.raises(InvalidPlan, match=r"unknown task \"elsewhere\.defined\""):
        client.enqueue(PLAN)
    assert client.list() == []


def test_a_producer_that_knows_only_some_tasks_can_leave_it_to_the_workers(client_of: Callable[..., Client]) -> None:
    client = client_of(here, interlock_check_tasks=False)
    assert client.status(client.enqueue(PLAN))["status"] == "executing"


@pytest.mark.integration
def test_what_celery_shares_among_the_apps_of_a_process_does_not_make_a_producers_app_know_tasks(
    migrated_sqlite_url: str,
) -> None:
    """Else a plan is refused or not by what else the process has imported. In a process that holds no other tests' tasks."""
    url = f"interlock_database_url={migrated_sqlite_url!r}"
    script = f"""
from celery import Celery
from interlock import Client
from {__name__} import PLAN, of_another_app, other
app = Celery("producer", broker="memory://")
app.conf.update({url})
with Client(app) as client:
    print(client.status(client.enqueue(PLAN))["status"])
    print({__name__ + ".of_another_app"!r} in app.tasks, {__name__ + ".of_whichever_app"!r} in app.tasks)
    other.finalize()
    print(of_another_app.name, client.status(client.enqueue(PLAN))["status"])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["executing", "True True", f"{__name__}.of_another_app executing"]


def test_an_app_that_declares_a_shared_looking_task_refuses_what_it_does_not_know(migrated_sqlite_url: str) -> None:
    """`@app.task` shares what it declares; it is the declaring app's own nevertheless."""
    other.conf.interlock_database_url = migrated_sqlite_url
    with Client(other) as client, pytest.raises(InvalidPlan, match="unknown task"):
        client.enqueue(PLAN)


def test_an_app_that_names_its_modules_refuses_what_they_do_not_define(client_of: Callable[..., Client]) -> None:
    """Its tasks may all be shared ones, as in a Django project."""
    client = client_of(include=[__name__])
    with pytest.raises(InvalidPlan, match="unknown task"):
        client.enqueue(PLAN)
