"""What running steps say of their progress is shown while a run is followed."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

from interlock.cli.commands.progress import progress_told
from tests.cli.conftest import RUN, step_document

if TYPE_CHECKING:
    from tests.cli.conftest import FakeClient


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
