from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from interlock.cli.commands.following import follow
from interlock.cli.output.board import Board
from interlock.cli.output.screen import Screen
from tests.cli.conftest import NOW, RUN, change, run_document, step_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.cli.conftest import FakeClient

URL = ("--database-url", "sqlite://")


def _story(end: str = "completed") -> list[Any]:
    return [
        change(1, "draft"),
        change(2, "executing", from_state="planning"),
        change(3, "running", "pack", attempt=1),
        change(4, "failed", "pack", reason="ValueError: no box", attempt=1),
        change(5, "running", "pack", attempt=2),
        change(6, end, "pack", attempt=2),
        change(7, end, from_state="executing"),
    ]


def _board(changes: list[Any], steps: int = 0) -> Board:
    board = Board(run_document("draft", [step_document(f"s{number}") for number in range(steps)]))
    for item in changes:
        board.apply(item)
    return board


# --- the board


def test_the_board_keeps_the_latest_attempt_and_the_first_start() -> None:
    board = _board(_story())
    row = board.steps["pack"]
    assert (row.state, row.attempt, row.note) == ("completed", 2, "")
    assert row.started_at == NOW + timedelta(seconds=3)
    assert row.ended_at == NOW + timedelta(seconds=6)
    assert board.state == "completed"
    assert board.ended_at == NOW + timedelta(seconds=7)


def test_a_failed_step_shows_why_until_it_is_tried_again() -> None:
    assert _board(_story()[:4]).steps["pack"].note == "ValueError: no box"
    assert _board(_story()[:5]).steps["pack"].note == ""
    assert _board(_story()[:5]).steps["pack"].ended_at is None


def test_the_board_counts_by_state_and_what_is_settled() -> None:
    board = _board([change(1, "running", "s1"), change(2, "completed", "s2"), change(3, "skipped", "s3")], steps=5)
    assert board.counts == {"pending": 2, "running": 1, "completed": 1, "skipped": 1}
    assert board.settled == 2


def test_where_not_all_fit_failures_come_first_then_what_runs_then_the_latest() -> None:
    done = [change(number, "completed", f"s{number}") for number in range(1, 6)]
    board = _board([*done, change(6, "running", "s8"), change(7, "failed", "s9")], steps=10)
    assert [row.key for row in board.rows(4)] == ["s9", "s8", "s5", "s4"]
    assert [row.key for row in board.rows(10)] == [f"s{number}" for number in range(10)]


def test_children_of_a_mapped_step_appear_with_their_first_change() -> None:
    assert list(_board([change(1, "pending", "s0.0")], steps=1).steps) == ["s0", "s0.0"]


# --- on a terminal


def _terminal(client: FakeClient, height: int = 24) -> str:
    screen = Screen()
    screen.out = Console(file=StringIO(), force_terminal=True, width=100, height=height, color_system=None)
    follow(client, RUN, screen)
    output: str = screen.out.file.getvalue()  # type: ignore[attr-defined]
    return output.rpartition("order")[2]  # the last picture


def test_the_last_picture_has_each_step_with_state_attempt_and_time(client: FakeClient) -> None:
    client.run = run_document("executing", [step_document("pack")])
    client.changes = _story()
    picture = _terminal(client)
    assert "✓ completed" in picture
    assert "1/1 steps" in picture
    assert "attempt 2" in picture
    assert "3.0 s" in picture


@pytest.mark.parametrize(("steps", "height"), [(60, 80), (30, 12)], ids=["many steps", "a low terminal"])
def test_what_does_not_fit_becomes_a_summary(client: FakeClient, steps: int, height: int) -> None:
    client.run = run_document("executing", [step_document(f"s{number}") for number in range(steps)])
    client.changes = [change(number + 1, "completed", f"s{number}") for number in range(steps)]
    picture = _terminal(client, height)
    assert f"✓ completed {steps}" in picture
    assert f"s{steps - 1} " in picture
    assert "s0 " not in picture
    assert len(picture.splitlines()) <= height


# --- the command


def test_watch_prints_a_line_per_change_in_a_pipe(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.changes = _story()
    result = cli(*URL, "watch", RUN)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 7
    assert "pack" in lines[4]
    assert "running, attempt 2" in lines[4]
    assert "(ValueError: no box)" in lines[3]


def test_watch_prints_json_lines_for_programs(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.changes = _story()
    result = cli(*URL, "watch", RUN, "--json", "--after", "5")
    assert [json.loads(line)["seq"] for line in result.stdout.splitlines()] == [6, 7]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_watch_fails_unless_the_run_completes(client: FakeClient, cli: Callable[..., Result], end: str) -> None:
    client.changes = _story(end)
    assert cli(*URL, "watch", RUN).exit_code == 1


def test_watch_of_a_run_that_is_over_tells_by_its_state(client: FakeClient, cli: Callable[..., Result]) -> None:
    """Nothing happens behind the last change; the exit code is that of the run all the same."""
    client.run["status"] = "failed"
    client.changes = _story("failed")
    assert cli(*URL, "watch", RUN, "--after", "7").exit_code == 1


def test_an_interrupted_watch_says_how_to_go_on_and_ends_nothing(
    client: FakeClient, cli: Callable[..., Result]
) -> None:
    client.changes, client.interrupt_watch = _story()[:3], True
    result = cli(*URL, "watch", RUN)
    assert result.exit_code == 130
    assert f"interlock watch {RUN}" in result.stderr
    assert f"interlock cancel {RUN}" in result.stderr
    assert not any(verb == "cancel" for verb, *_ in client.calls)
