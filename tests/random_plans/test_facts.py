"""What bodies noted is read back as they did it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tests.chaos.ledger import Entry, append, read
from tests.random_plans.facts import bodies_of

if TYPE_CHECKING:
    from pathlib import Path


def test_the_bodies_of_a_run_are_read_from_its_ledger(tmp_path: Path) -> None:
    note = partial(_note, tmp_path / "ledger")
    note("one", "begin", {"step": "a", "number": 0, "fate": "raise", "given": {}}, at=1.0)
    note("one", "found", None, at=1.1)
    note("one", "saved", 0, at=1.2)
    note("one", "end", {"how": "Wrong"}, at=1.3)
    note("two", "begin", {"step": "a", "number": 1, "fate": "return", "given": {}}, at=2.0)
    note("two", "end", {"how": "return", "result": {"body": "two"}}, at=2.1)
    note("other", "begin", {"step": "a", "number": 2, "fate": "return", "given": {}}, at=3.0, run_id="rerun")
    entries = [entry for found in read(tmp_path / "ledger").values() for entry in found]
    first, second = bodies_of(entries, "run")["a"]
    assert (first.how, first.looked, first.found, first.saved, first.ended_at) == ("Wrong", True, None, True, 1.3)
    assert (second.how, second.result, second.number) == ("return", {"body": "two"}, 1)


def test_a_body_that_is_interrupted_behind_its_result_was_interrupted(tmp_path: Path) -> None:
    note = partial(_note, tmp_path / "ledger")
    note("one", "begin", {"step": "a", "number": 0, "fate": "return", "given": {}}, at=1.0)
    note("one", "end", {"how": "return", "result": {"body": "one"}}, at=1.1)
    note("one", "end", {"how": "StepInterrupted"}, at=1.2)
    entries = [entry for found in read(tmp_path / "ledger").values() for entry in found]
    ((body,),) = bodies_of(entries, "run").values()
    assert (body.how, body.ended_at) == ("StepInterrupted", 1.2)


def _note(path: Path, body: str, what: str, value: Any, *, at: float, run_id: str = "run") -> None:
    append(path, Entry("step", run_id, 1, body, what, value, at=at))
