"""What is begun now and ended later, and what waits for the end of a tracer."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from interlock.signals.deferred_work import at_end, begun, ending, is_ending

if TYPE_CHECKING:
    from collections.abc import Callable


class Asked:
    """Counts how often something was begun and ended."""

    def __init__(self, *errors: Exception) -> None:
        self.told: list[str] = []
        self._errors = list(errors)

    def __call__(self) -> Callable[[], int]:
        self.told.append("begun")
        if self._errors:
            raise self._errors.pop(0)
        return self._end

    def _end(self) -> int:
        self.told.append("ended")
        return len(self.told)


def test_it_is_begun_at_once_and_ended_when_it_is_called() -> None:
    asked = Asked()
    end = begun(asked)
    assert asked.told == ["begun"]
    assert end() == 2
    assert asked.told == ["begun", "ended"]


def test_called_again_it_is_begun_anew() -> None:
    asked = Asked()
    end = begun(asked)
    end()
    end()
    assert asked.told == ["begun", "ended"] * 2


def test_what_the_beginning_raised_is_raised_at_the_end_and_then_tried_again() -> None:
    asked = Asked(ConnectionError("away"))
    end = begun(asked)
    with pytest.raises(ConnectionError, match="away"):
        end()
    assert end() == 3
    assert asked.told == ["begun", "begun", "ended"]


def test_without_a_tracer_nothing_waits() -> None:
    told: list[str] = []
    at_end(lambda: told.append("now"))
    assert told == ["now"]


def test_behind_the_tracer_everything_is_called_in_its_order() -> None:
    told: list[str] = []
    with ending():
        at_end(lambda: told.append("first"))
        at_end(lambda: told.append("second"))
        told.append("tracer")
    assert told == ["tracer", "first", "second"]


def test_what_waits_is_called_however_the_tracer_ends() -> None:
    told: list[str] = []

    def tracer() -> None:
        with ending():
            at_end(lambda: told.append("called"))
            raise SystemExit

    with pytest.raises(SystemExit):
        tracer()
    assert told == ["called"]


def test_what_fails_at_the_end_is_logged_and_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    with ending():
        at_end(lambda: 1 / 0)
        at_end(lambda: told.append("called"))
    assert told == ["called"]
    assert "the end of a step failed" in caplog.text


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_child_is_at_the_end_while_what_is_due_is_called_and_no_longer(error: type[BaseException]) -> None:
    told: list[bool] = []

    def due() -> None:
        told.append(is_ending())
        raise error

    with contextlib.suppress(SystemExit), ending():
        at_end(due)
        told.append(is_ending())
    assert [*told, is_ending()] == [False, True, False]
