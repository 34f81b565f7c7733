from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from interlock.cli.output.wording import (
    STYLES,
    ago,
    as_time,
    duration,
    elapsed_s,
    error_line,
    progress_words,
    state_text,
)
from interlock.core.model.states import StepState, WorkflowState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (42.9, "42 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (4 * 86_400 + 3 * 3600, "4 d 3 h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("past", "text"),
    [
        (timedelta(seconds=1), "just now"),
        (timedelta(seconds=-30), "just now"),
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(minutes=59), "59 min ago"),
        (timedelta(hours=23), "23 h ago"),
        (timedelta(days=29), "29 d ago"),
    ],
)
def test_a_time_is_told_by_how_long_it_is_past(past: timedelta, text: str) -> None:
    assert ago((NOW - past).isoformat(), NOW) == text


def test_a_time_long_past_is_told_by_its_date() -> None:
    assert ago(NOW - timedelta(days=100), NOW).startswith("2025-11-2")


def test_elapsed_time_runs_until_the_end_or_now_and_never_backwards() -> None:
    start = NOW - timedelta(seconds=5)
    assert elapsed_s(start, None, NOW) == 5
    assert elapsed_s(start.isoformat(), (NOW - timedelta(seconds=3)).isoformat(), NOW) == 2
    assert elapsed_s(NOW + timedelta(seconds=9), None, NOW) == 0
    assert elapsed_s(None, None, NOW) is None


def test_times_are_typed_as_spans_or_iso() -> None:
    assert as_time("90m", NOW) == NOW - timedelta(minutes=90)
    assert as_time("1.5h", NOW) == NOW - timedelta(minutes=90)
    assert as_time("2026-02-01T00:00+01:00", NOW) == datetime(2026, 1, 31, 23, tzinfo=UTC)
    with pytest.raises(ValueError, match="Invalid isoformat"):
        as_time("soon", NOW)


def test_every_state_has_a_look_of_its_own() -> None:
    states = {*WorkflowState, *StepState}
    assert set(STYLES) == {state.value for state in states}
    assert state_text("waiting_approval").plain == "? waiting approval"


def test_of_a_traceback_the_last_line_is_what_counts() -> None:
    assert error_line("Traceback (most recent call last):\n  …\nValueError: no box\n") == "ValueError: no box"
    assert error_line(None) == ""
    assert len(error_line("x" * 500)) == 200


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
