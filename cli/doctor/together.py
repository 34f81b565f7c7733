"""Asks many parts at once, each in a thread of its own, within one bounded time: one that hangs delays no other."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from interlock.core.redaction import redacted

from .facts import Away

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ask_all"]


def ask_all(questions: Mapping[str, Callable[[], Any]], timeout_s: float) -> dict[str, Any]:
    """Ask every question at the same time.

    Args:
        questions: What is asked, by how it is named in the answer of one that fails.
        timeout_s: How long to wait for all of them. A thread that is late is left to itself.

    Returns:
        The answers by the same names; `Away` where there was none in time, or an error.
    """
    answers: SimpleQueue[tuple[str, Any]] = SimpleQueue()

    def answer(name: str, ask: Callable[[], Any]) -> None:
        try:
            answers.put((name, ask()))
        except Exception as error:  # noqa: BLE001 - whatever a driver raises: that it does is the answer
            answers.put((name, Away(f"{name}: {_in_words(error)}")))

    for name, ask in questions.items():
        Thread(target=answer, args=(name, ask), name=f"doctor: {name}", daemon=True).start()
    found: dict[str, Any] = {}
    deadline = time.monotonic() + timeout_s
    while len(found) < len(questions):
        try:
            name, value = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        found[name] = value
    late = {name: Away(f"{name}: no answer within {timeout_s:g} s") for name in questions if name not in found}
    return {**found, **late}


def _in_words(error: Exception) -> str:
    if type(error) is ValueError:  # of whoever reads URLs: its text may be a piece of a password
        return "its URL cannot be used; write special characters of a password escaped"
    original = getattr(error, "orig", None) or error
    lines = str(original).strip().splitlines()
    return redacted(lines[0]) if lines else type(original).__name__
