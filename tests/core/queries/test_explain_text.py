"""Times and durations as `explain` writes them; its sentences are tested where they are given, in test_explain."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from interlock.core.queries.explain_text import clock_text, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (119.4, "119 s"),
        (119.6, "2 min"),
        (7_100, "118 min"),
        (7_200, "2 h"),
        (172_700, "48 h"),
        (172_800, "2 d"),
    ],
)
def test_a_duration_is_told_in_the_largest_unit_of_which_there_are_two(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_time_is_told_with_its_zone() -> None:
    assert clock_text(datetime(2030, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)) == "2030-01-02 03:04:05 UTC"
