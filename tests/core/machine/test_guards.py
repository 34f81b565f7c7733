"""Guards by name: how they are registered and found, and what one that fails does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core import GuardContext, GuardRefused, WorkflowController, guard
from interlock.core.errors import ConfigurationError
from interlock.core.machine import guards
from tests.core.office_hours import office_hours
from tests.core.rows import steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.core.rows import Rows

RUN, STEP = "workflow_run", "workflow_step"


def test_a_guard_that_fails_refuses_and_says_how(
    attach: Callable[..., None], controller: WorkflowController, rows: Rows
) -> None:
    attach(RUN, "executing", "paused", guards=("tests.broken",))
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    with pytest.raises(GuardRefused, match=r"refused by guard 'tests\.broken': it failed: .*no such column") as caught:
        controller.pause_workflow(run_id)
    assert caught.value.__class__ is GuardRefused
    assert rows.run(run_id).status == "executing"


def test_a_guard_may_come_from_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "tests.installed"

        def load(self) -> Callable[[GuardContext], bool]:
            return office_hours

    guards._from_entry_points.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(guards, "entry_points", lambda group: [Point()] if group == "interlock.guards" else [])
        assert guards.find_guard("tests.installed") is office_hours
        assert "tests.installed" in guards.known_guards()
    guards._from_entry_points.cache_clear()
    with pytest.raises(ConfigurationError, match=r"no guard is called 'tests\.installed'; known: .*has_valid_plan"):
        guards.find_guard("tests.installed")


def test_a_name_belongs_to_one_guard() -> None:
    assert guard("tests.office_hours")(office_hours) is office_hours
    with pytest.raises(ConfigurationError, match=r"'tests\.office_hours' is already registered"):
        guard("tests.office_hours")(lambda _: True)
