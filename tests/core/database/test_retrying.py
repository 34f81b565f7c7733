"""Transactions that the database gave up on, and calls that may succeed later."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import DBAPIError
from tenacity import stop_after_delay

from interlock.core.backoff import Backoff
from interlock.core.database import retrying
from interlock.core.database.retrying import retry_call, retry_transient, run_transaction
from interlock.core.errors import DatabaseBusy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from interlock.core.events import Effects

_AT_ONCE = Backoff(0.0, 0.0)


def _deadlock() -> DBAPIError:
    original: Any = SimpleNamespace(sqlstate="40P01")
    return DBAPIError(None, None, original)


class Failing:
    """A call that fails a number of times and then returns how often it was called."""

    def __init__(self, times: int, error: Exception) -> None:
        self.calls = 0
        self._times = times
        self._error = error

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self._times:
            raise self._error
        return self.calls


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "_PAUSES", _AT_ONCE)


@pytest.mark.usefixtures("_no_pauses")
def test_a_transaction_that_the_database_gives_up_is_tried_eight_times() -> None:
    assert retry_transient(Failing(7, _deadlock())) == 8
    call = Failing(8, _deadlock())
    with pytest.raises(DatabaseBusy, match="8 times"):
        retry_transient(call)
    assert call.calls == 8


@pytest.mark.usefixtures("_no_pauses")
def test_an_error_that_is_not_transient_is_raised_as_it_is_and_at_once() -> None:
    for error in (KeyError("x"), DBAPIError(None, None, Exception("no such table"))):
        call = Failing(1, error)
        with pytest.raises(type(error)) as raised:
            retry_transient(call)
        assert (raised.value, call.calls) == (error, 1)


@pytest.mark.usefixtures("_no_pauses")
def test_each_try_of_a_transaction_begins_with_empty_effects() -> None:
    ended: list[str] = []

    @contextmanager
    def begin() -> Iterator[Any]:
        try:
            yield None
        except DBAPIError:
            ended.append("rolled back")
            raise
        ended.append("committed")

    tries = Failing(2, _deadlock())

    def work(_: Connection, effects: Effects) -> int:
        effects.changes.append(object())  # type: ignore[arg-type]
        return tries()

    result, effects = run_transaction(begin, work, "upkeep")
    assert (result, len(effects.changes)) == (3, 1)
    assert ended == ["rolled back", "rolled back", "committed"]


def test_a_call_that_may_succeed_later_is_made_until_the_time_is_over() -> None:
    call = Failing(3, ConnectionResetError())
    assert retry_call(call, when=_is_reset, backoff=_AT_ONCE, stop=stop_after_delay(60)) == 4
    call = Failing(1_000_000, ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        retry_call(call, when=_is_reset, backoff=Backoff(0.01, 0.01), stop=stop_after_delay(0.05))
    assert 2 <= call.calls < 20


def _is_reset(error: BaseException) -> bool:
    return isinstance(error, ConnectionResetError)
