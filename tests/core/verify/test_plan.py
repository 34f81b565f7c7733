"""Plans whose counts are wrong, or whose steps started, were skipped or forgotten without reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.verify.corruptions import OF_PLANS

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("name", OF_PLANS)
def test_a_change_of_what_a_plan_counts_is_found(kinds_found: Callable[[list[str]], set[str]], name: str) -> None:
    statements, kind = OF_PLANS[name]
    assert kind in kinds_found(statements)
