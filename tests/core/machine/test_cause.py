"""Who makes a transition and why, as it comes from callers."""

from __future__ import annotations

from typing import Any

import pytest

from interlock.core.errors import InvalidText, NotJson
from interlock.core.machine.cause import ENGINE, Cause


def test_what_a_caller_asks_for_may_be_vetoed_and_what_happens_may_not() -> None:
    asked = Cause.asked("ana", "lunch", {"n": 1})
    assert (asked.actor, asked.reason, asked.meta, asked.vetoable) == ("ana", "lunch", {"n": 1}, True)
    assert not Cause(ENGINE).vetoable


def test_another_reason_leaves_the_actor_and_what_he_may() -> None:
    assert Cause.asked("ana", "lunch").because("dinner", {"n": 2}) == Cause("ana", "dinner", {"n": 2}, vetoable=True)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("a" * 201, None), InvalidText),
        (("ana", "x" * 10_001), InvalidText),
        (("ana", "a\0"), InvalidText),
        (("ana", None, {"at": {1}}), NotJson),
    ],
)
def test_what_the_history_cannot_store_is_refused(given: tuple[Any, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        Cause.asked(*given)
