"""The Django project with a real worker: its orders and their workflows are committed together, or caught up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from interlock import Client
from interlock.migrations import upgrade
from tests.servers import ROOT, CeleryWorker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_APP = "examples.django_orders.application"
_QUICK = {"INTERLOCK_HEARTBEAT_S": "0.5", "INTERLOCK_SWEEP_S": "0.3", "INTERLOCK_WATCH_POLL_S": "1"}


class Project:
    """The project in its own processes, as its user runs it."""

    def __init__(self, folder: Path, broker_url: str) -> None:
        self.database_url = f"sqlite:///{folder / 'orders.db'}"
        self.log = folder / "worker.log"
        self.environment = {
            **os.environ,
            **_QUICK,
            "ORDERS_DATABASE": str(folder / "orders.db"),
            "CELERY_BROKER_URL": broker_url,
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "examples.django_orders.settings",
        }
        self.client = Client(database_url=self.database_url)

    def manage(self, *arguments: str, **environment: str) -> str:
        """Run a command of Django's and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "examples.django_orders", *arguments],
            cwd=ROOT,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, code: str, **environment: str) -> Any:
        """Run Python in the project, and return what it printed as JSON."""
        imports = "import json; from examples.django_orders.checkout import *; from django.db import *"
        return json.loads(self.manage("shell", "-v", "0", "-c", f"{imports}\n{code}", **environment))

    def runs(self) -> list[dict[str, Any]]:
        """All workflow runs."""
        return self.client.list()


@pytest.fixture
def project(tmp_path: Path, broker_url: str) -> Iterator[Project]:
    """The project with empty tables, Django's and Interlock's in one file."""
    project = Project(tmp_path, broker_url)
    upgrade(project.database_url)
    project.manage("migrate", "--run-syncdb", "-v", "0")
    yield project
    project.client.close()


def test_a_committed_order_is_charged_and_shipped(project: Project) -> None:
    with CeleryWorker(_APP, log=project.log, concurrency=1, env=project.environment):
        order = project.run("print(json.dumps(place_order('ann', 4200).pk))")
        (run,) = project.runs()
        assert project.client.wait(run["run_id"], timeout_s=30) == "completed"
        assert project.client.result(run["run_id"]) == {"ship": f"order {order} of ann: 4200 cents, shipped"}
    assert project.run("print(json.dumps(Order.objects.get().state))") == "shipped"


def test_an_order_that_is_rolled_back_leaves_no_workflow(project: Project) -> None:
    """Refused by the database, and rolled back by what called: `on_commit` belongs to the outermost transaction."""
    left = project.run(
        "try:\n    place_order('ann', 0)\n"
        "except IntegrityError:\n    pass\n"
        "try:\n    with transaction.atomic():\n        place_order('ann', 4200)\n        raise RuntimeError\n"
        "except RuntimeError:\n    pass\n"
        "print(json.dumps(Order.objects.count()))"
    )
    assert left == 0
    assert project.runs() == []


def test_an_order_whose_start_was_lost_is_caught_up_once(project: Project, tmp_path: Path) -> None:
    elsewhere = {"INTERLOCK_DATABASE_URL": f"sqlite:///{tmp_path / 'away' / 'gone.db'}"}
    project.run("print(json.dumps(place_order('ann', 4200).pk))", **elsewhere)
    assert project.runs() == []
    assert project.run("print(json.dumps([catch_up(), catch_up(), place_order('bob', 1).cents, catch_up()]))") == [
        1,
        0,
        1,
        0,
    ]
    assert [run["name"] for run in project.runs()] == ["order", "order"]
