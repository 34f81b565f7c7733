"""Many parts are asked at once, within a bounded time."""

from __future__ import annotations

import threading
import time

from interlock.cli.doctor.facts import Away
from interlock.cli.doctor.together import ask_all


def test_a_question_that_hangs_delays_no_other() -> None:
    hang = threading.Event()
    began = time.monotonic()
    answers = ask_all({"hanging": hang.wait, "quick": lambda: 1, "broken": lambda: 1 // 0}, 0.2)
    assert time.monotonic() - began < 5
    hang.set()
    assert answers["quick"] == 1
    assert answers["hanging"] == Away("hanging: no answer within 0.2 s")
    assert answers["broken"] == Away("broken: integer division or modulo by zero")


def test_an_error_is_told_without_passwords() -> None:
    def refuse() -> None:
        message = "cannot reach redis://:secret@host/0\nand a second line"
        raise OSError(message)

    assert ask_all({"x": refuse}, 1.0) == {"x": Away("x: cannot reach redis://***@host/0")}
