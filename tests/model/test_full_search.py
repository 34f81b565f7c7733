"""The plans that take longer to search, up to a minute each."""

from __future__ import annotations

import pytest

from .search import search
from .shapes import ALL, SMALL

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", [name for name in ALL if name not in SMALL])
def test_no_state_of_a_run_breaks_an_invariant_and_each_can_end(name: str) -> None:
    found = search(ALL[name])
    assert found.counterexample is None, f"\n{name}\n{found.counterexample}"
