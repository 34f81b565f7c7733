"""A run as its events tell it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from interlock.cli.output.board import Board
from tests.cli.conftest import NOW, change, run_document, step_document, story


def _board(changes: list[Any], steps: int = 0) -> Board:
    board = Board(run_document("draft", [step_document(f"s{number}") for number in range(steps)]))
    for item in changes:
        board.apply(item)
    return board


def test_the_board_keeps_the_latest_attempt_and_the_first_start() -> None:
    board = _board(story())
    row = board.steps["pack"]
    assert (row.state, row.attempt, row.note) == ("completed", 2, "")
    assert row.started_at == NOW + timedelta(seconds=3)
    assert row.ended_at == NOW + timedelta(seconds=6)
    assert board.state == "completed"
    assert board.ended_at == NOW + timedelta(seconds=7)


def test_a_failed_step_shows_why_until_it_is_tried_again() -> None:
    assert _board(story()[:4]).steps["pack"].note == "ValueError: no box"
    assert _board(story()[:5]).steps["pack"].note == ""
    assert _board(story()[:5]).steps["pack"].ended_at is None


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


def test_the_board_shows_progress_until_the_next_change() -> None:
    board = Board(run_document("executing", [step_document("print")]))
    board.progress("print", "too early")
    assert board.steps["print"].note == ""
    board.apply(change(1, "running", "print"))
    board.progress("print", "1/2")
    assert board.steps["print"].note == "1/2"
    board.apply(change(2, "completed", "print"))
    assert board.steps["print"].note == ""
