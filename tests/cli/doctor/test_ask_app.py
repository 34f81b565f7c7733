"""The facts about an app: its tasks, its routes, its guards file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery

from interlock import install
from interlock.cli.doctor.ask_app import app_facts, routes
from interlock.core.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def test_what_an_app_tells_of_itself(tmp_path: Path) -> None:
    app = Celery("facts", set_as_current=False)
    app.conf.task_routes = {"facts.slow": {"queue": "slow"}}

    @app.task(name="facts.late", acks_late=True, reject_on_worker_lost=True)
    def late() -> None:
        """Acknowledge late."""

    guards = tmp_path / "guards.yaml"
    guards.write_text("guards: 3\n")
    before = app_facts(app, Settings(guards_file=str(guards), app="facts:app"))
    assert (before.is_installed, before.import_path) == (False, "facts:app")
    assert before.late_tasks == before.requeued_tasks == ("facts.late",)
    assert before.guards_fault is not None
    assert app_facts(install(app), Settings()).is_installed
    assert app_facts(app, Settings()).import_path is None, "it is in no module"
    assert routes(app, ["facts.slow", "facts.late"]) == {"facts.slow": "slow", "facts.late": "celery"}


def test_a_router_that_fails_only_leaves_its_route_out() -> None:
    def router(*_: Any, **__: Any) -> None:
        raise RuntimeError

    app = Celery("facts", set_as_current=False)
    app.conf.task_routes = (router,)
    assert routes(app, ["facts.slow"]) == {}
