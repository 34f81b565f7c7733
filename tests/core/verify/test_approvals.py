"""Requests for approval that nobody can have made so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.core.verify.corruptions import OF_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("name", OF_REQUESTS)
def test_a_change_of_a_request_is_found(kinds_found: Callable[[list[str]], set[str]], name: str) -> None:
    statements, kind = OF_REQUESTS[name]
    assert kind in kinds_found(statements)
