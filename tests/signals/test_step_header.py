"""The header that says whose attempt a message is, and what is read of one that somebody else wrote."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from interlock.core.events import Dispatch
from interlock.core.plan.run_through import NEXT_KINDS
from interlock.signals.step_header import HEADER, StepHeader, header_of, next_kinds, parse_header, read_header

DISPATCH = Dispatch("run", "default", "step", "a", "shop.pay", "step.2", 2, 0, {})
WRITTEN = StepHeader("run", "step", "default", "a", 2)


@pytest.mark.parametrize("place", ["attribute", "headers", "request_dict"])
def test_it_is_found_wherever_celery_has_put_it(place: str) -> None:
    value = header_of(DISPATCH)
    request = {
        "attribute": SimpleNamespace(interlock=value),
        "headers": SimpleNamespace(headers={HEADER: value}),
        "request_dict": SimpleNamespace(request_dict={HEADER: value}),
    }[place]
    assert read_header(request) == WRITTEN
    assert WRITTEN.idempotency_key == "step"


@pytest.mark.parametrize("value", [None, "x", [], {}, {**header_of(DISPATCH), "attempt": "no number"}])
def test_what_is_no_header_is_read_as_none(value: Any) -> None:
    assert parse_header(value) is None


def test_the_kinds_behind_a_step_travel_with_it_where_its_plan_names_some() -> None:
    assert NEXT_KINDS not in header_of(DISPATCH)
    through = Dispatch("run", "default", "step", "a", "shop.pay", "step.1", 1, 0, {NEXT_KINDS: ["x", "y"]})
    assert next_kinds(header_of(through)) == {"x", "y"}


@pytest.mark.parametrize("value", [None, {}, {NEXT_KINDS: "x"}, {NEXT_KINDS: [1, None]}])
def test_kinds_that_are_none_are_not_read(value: Any) -> None:
    assert next_kinds(value) == frozenset()
