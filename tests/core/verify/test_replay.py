"""What the history of a run shows by itself when somebody has changed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.verify.corruptions import OF_HISTORY

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("name", OF_HISTORY)
def test_a_change_of_the_history_is_found(kinds_found: Callable[[list[str]], set[str]], name: str) -> None:
    statements, kind = OF_HISTORY[name]
    assert kind in kinds_found(statements)
