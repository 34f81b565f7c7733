"""Findings: only of kinds that are documented, and each kind can be made."""

from __future__ import annotations

import pytest

from interlock.core.verify import KINDS, Finding
from tests.core.verify.corruptions import CORRUPTIONS


def test_a_kind_that_is_not_documented_cannot_be_found() -> None:
    with pytest.raises(ValueError, match="surprise"):
        Finding("surprise", "run", "workflow", "text")


def test_every_kind_of_finding_is_planted_by_some_corruption() -> None:
    assert {kind for _, kind in CORRUPTIONS.values()} == set(KINDS)
