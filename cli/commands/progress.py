"""Polls the progress of running steps: it is no state change, so no event carries it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

from interlock.cli.output.wording import progress_words
from interlock.core.model.states import StepState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from interlock.client.client import Client

__all__ = ["progress_told"]

_EVERY_S: Final = 1.0
_SHARE: Final = 10  # a large run, whose status takes a while, is asked for less often: a tenth of the time at most


@contextmanager
def progress_told(client: Client, run_id: str, tell: Callable[[str, str], None]) -> Iterator[None]:
    """While the block runs, call `tell(key, words)` from a thread whenever a running step says something new.

    Args:
        client: Whom to ask.
        run_id: The run.
        tell: Gets a step's key and its progress in words.
    """
    stop = Event()
    thread = Thread(target=_poll, args=(client, run_id, tell, stop), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_EVERY_S)


def _poll(client: Client, run_id: str, tell: Callable[[str, str], None], stop: Event) -> None:
    said: dict[str, str] = {}
    wait_s = _EVERY_S
    while not stop.wait(wait_s):
        began = time.monotonic()
        try:
            steps = client.status(run_id)["steps"]
        except Exception:  # noqa: BLE001 - only a decoration: what is wrong with the server, the watch will say
            steps = []
        for step in steps:
            words = progress_words(step.get("progress")) if step["status"] == StepState.RUNNING else ""
            if words and said.get(step["key"]) != words and not stop.is_set():
                said[step["key"]] = words
                tell(step["key"], words)
        wait_s = max(_EVERY_S, _SHARE * (time.monotonic() - began))
