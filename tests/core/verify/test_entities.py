"""Rows of runs and steps that contradict their history, or each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.verify.corruptions import OF_ENTITIES

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("name", OF_ENTITIES)
def test_a_change_of_a_run_or_a_step_is_found(kinds_found: Callable[[list[str]], set[str]], name: str) -> None:
    statements, kind = OF_ENTITIES[name]
    assert kind in kinds_found(statements)
