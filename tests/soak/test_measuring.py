"""What counts as a leak: one more of anything; of a pool's connections, those beyond its size; however many restarts there were."""

from __future__ import annotations

from dataclasses import replace

import pytest

from .measuring import POOL, Held

BEFORE = Held(files={"engine": 9}, sockets={"engine": 3}, pools={"engine": 2}, clients={"broker": 10, "PostgreSQL": 0})


def test_as_much_as_before_or_less_is_no_leak() -> None:
    assert BEFORE.more_than(BEFORE) == {}
    assert replace(BEFORE, files={"engine": 8}).more_than(BEFORE) == {}


@pytest.mark.parametrize(
    ("after", "name"),
    [
        (replace(BEFORE, files={"engine": 10}), "engine: files"),
        (replace(BEFORE, sockets={"engine": 4}), "engine: connections"),
        (replace(BEFORE, clients={"broker": 11, "PostgreSQL": 0}), "broker: clients"),
        (replace(BEFORE, clients={"broker": 10, "PostgreSQL": 1}), "PostgreSQL: clients"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_more_of_anything_is_a_leak(after: Held, name: str) -> None:
    assert list(after.more_than(BEFORE)) == [name]


def test_a_pool_may_be_filled_and_no_more() -> None:
    assert replace(BEFORE, pools={"engine": POOL}).more_than(BEFORE) == {}
    beyond = replace(BEFORE, pools={"engine": POOL + 1}).more_than(BEFORE)
    assert beyond == {"engine: connections to PostgreSQL": (2, POOL + 1)}
