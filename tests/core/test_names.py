"""Names and texts: what is accepted, and how the rest is refused."""

from __future__ import annotations

import pytest

from interlock.core.errors import InvalidName, InvalidText
from interlock.core.names import check_name, check_text


def test_a_name_is_returned_as_it_is() -> None:
    assert check_name("key", "Nightly_report-2.x") == "Nightly_report-2.x"
    assert check_name("key", "x" * 200) == "x" * 200


@pytest.mark.parametrize("value", ["", "a b", "a/b", "a:b", "x" * 201, "naïve", "a\n", 7, None])
def test_what_could_mean_something_in_a_channel_or_a_header_is_no_name(value: object) -> None:
    with pytest.raises(InvalidName) as refused:
        check_name("session_id", value)
    assert refused.value.field == "session_id"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (7, "must be text, not int"),
        ("x" * 11, "11 characters, over the limit of 10"),
        ("a\0b", "holds NUL or a lone surrogate, which cannot be stored"),
        ("a\ud800", "holds NUL or a lone surrogate, which cannot be stored"),
    ],
)
def test_a_text_that_a_database_would_refuse_or_change_is_refused_before(value: object, fault: str) -> None:
    with pytest.raises(InvalidText, match=f"^reason: {fault}"):
        check_text("reason", value, 10)


def test_a_text_may_hold_what_a_name_may_not() -> None:
    assert check_text("reason", "naïve:\n☂", 10) == "naïve:\n☂"
