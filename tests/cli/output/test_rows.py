"""Runs, steps and changes as cells of a table."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from interlock.cli.output.rows import change_row, headlines, run_row, step_row
from interlock.cli.output.wording import state_text
from tests.cli.conftest import NOW, RUN, change, run_document, step_document


def _texts(cells: Any) -> list[str]:
    return [str(cell) for cell in cells]


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"status": "running", "claimed_by": "a@host"}, "on a@host"),
        ({"status": "completed", "claimed_by": "a@host"}, ""),
        ({"status": "failed", "error": "ValueError: no box", "claimed_by": "a@host"}, "ValueError: no box"),
    ],
)
def test_the_note_of_a_step_is_its_error_else_who_runs_it(fields: dict[str, Any], note: str) -> None:
    assert _texts(step_row(step_document("pack", **fields), NOW))[-1] == note


def test_a_step_shows_its_attempt_once_it_has_one() -> None:
    assert step_row(step_document("pack"), NOW)[2] == ""
    assert step_row(step_document("pack", "running", attempt=2), NOW)[2] == "2"


def test_a_run_shows_how_many_of_its_steps_are_done() -> None:
    run = run_document("executing", steps_completed=1_000, name=None) | {"steps": 2_000}
    assert _texts(run_row(run, NOW))[:4] == [RUN, "", str(state_text("executing")), "1,000/2,000"]


def test_a_paused_run_says_by_whom_and_what_drains() -> None:
    pause = {"by": "ann", "at": (NOW - timedelta(minutes=2)).isoformat(), "mode": "drain", "draining": 3}
    lines = dict(headlines(run_document("paused", pause=pause), NOW))
    assert str(lines["paused"]).startswith("by ann ")
    assert str(lines["paused"]).endswith("mode drain, 3 steps still draining")
    assert str(lines["steps"]) == "none"


def test_a_change_shows_where_from_and_the_first_change_does_not() -> None:
    assert str(change_row(change(1, "draft"))[3]) == str(state_text("draft"))
    row = _texts(change_row(change(2, "running", "pack", from_state="pending")))
    assert (row[0], row[2], row[3]) == ("2", "pack", f"pending → {state_text('running')}")
