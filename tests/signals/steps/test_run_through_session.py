"""A session of run-through: what it offers, for how long, and what it holds next."""

from __future__ import annotations

from typing import Any

from interlock.core.events import Dispatch
from interlock.core.plan.run_through import NEXT_KINDS, kind_of
from interlock.signals.steps.run_through_session import RunThroughSession

PAY, SEND, OTHER = (kind_of(task, None) for task in ("pay", "send", "other"))


def _session(*, may_continue: bool = True, clock: Any = lambda: 0.0) -> RunThroughSession:
    return RunThroughSession(
        "a-message",
        frozenset({PAY, SEND}),
        frozenset({PAY, OTHER}),
        limit_s=30,
        may_continue=lambda: may_continue,
        clock=clock,
    )


def _dispatch(*following: str) -> Dispatch:
    return Dispatch("run", "default", "step", "b", "pay", "step.1", 1, 0, {NEXT_KINDS: list(following)})


def test_it_offers_what_it_could_run_of_what_lies_ahead_each_time_with_a_token_of_its_own() -> None:
    session = _session()
    first, second = session.offer(), session.offer()
    assert first is not None
    assert second is not None
    assert (first.carrier_id, first.kinds) == ("a-message", {PAY})
    assert first.token != second.token


def test_what_an_offer_has_claimed_is_run_next_and_held_by_the_token_of_the_offer() -> None:
    session = _session()
    offer = session.offer()
    assert offer is not None
    session.claimed(_dispatch(SEND), offer)
    following = session.take_next()
    assert following is not None
    dispatch, ref = following
    assert (dispatch.key, ref.task_id, ref.token) == ("b", "step.1", offer.token)
    assert session.take_next() is None
    behind = session.offer()
    assert behind is not None
    assert behind.kinds == {SEND}


def test_behind_a_step_with_nothing_that_it_could_run_it_offers_nothing() -> None:
    session = _session()
    offer = session.offer()
    assert offer is not None
    session.claimed(_dispatch(OTHER), offer)
    assert session.offer() is None


def test_after_its_time_and_where_it_may_not_it_offers_nothing() -> None:
    now = [0.0]
    session = _session(clock=lambda: now[0])
    now[0] = 29.9
    assert session.offer() is not None
    now[0] = 30.0
    assert session.offer() is None
    assert _session(may_continue=False).offer() is None
