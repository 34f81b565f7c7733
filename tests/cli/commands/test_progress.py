"""What running steps say of their progress is shown while a run is followed."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from interlock.cli.commands.progress import progress_told
from interlock.cli.output.board import Board
from interlock.cli.output.wording import progress_words
from tests.cli.conftest import RUN, change, run_document, step_document

if TYPE_CHECKING:
    from tests.cli.conftest import FakeClient


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (None, ""),
        ({"done": 12, "total": 100, "message": "labels"}, "12/100 labels"),
        ({"done": 3.5, "total": None, "message": None}, "3.5"),
        ({"done": None, "total": None, "message": "warming up"}, "warming up"),
    ],
)
def test_progress_is_a_few_words(progress: dict[str, Any] | None, words: str) -> None:
    assert progress_words(progress) == words


def test_what_a_running_step_says_is_told_once_until_it_says_something_new(client: FakeClient) -> None:
    told: list[tuple[str, str]] = []
    heard = Event()

    def tell(key: str, words: str) -> None:
        told.append((key, words))
        heard.set()

    client.run["steps"] = [
        step_document("print", "running", progress={"done": 1, "total": 2, "message": None}),
        step_document("done", "completed", progress={"done": 2, "total": 2, "message": None}),
    ]
    with progress_told(client, RUN, tell):
        assert heard.wait(10)
        heard.clear()
        client.run["steps"][0]["progress"] = {"done": 2, "total": 2, "message": None}
        assert heard.wait(10)
    assert told == [("print", "1/2"), ("print", "2/2")]


def test_the_board_shows_progress_until_the_next_change() -> None:
    board = Board(run_document("executing", [step_document("print")]))
    board.progress("print", "too early")
    assert board.steps["print"].note == ""
    board.apply(change(1, "running", "print"))
    board.progress("print", "1/2")
    assert board.steps["print"].note == "1/2"
    board.apply(change(2, "completed", "print"))
    assert board.steps["print"].note == ""
