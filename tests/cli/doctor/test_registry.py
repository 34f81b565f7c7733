"""Checks are registered once, each with its reason and its remedy."""

from __future__ import annotations

import pytest

from interlock.cli.doctor.checks import CHECKS
from interlock.cli.doctor.findings import Severity
from interlock.cli.doctor.registry import check


def test_two_checks_cannot_have_one_name() -> None:
    with pytest.raises(ValueError, match="durable"):
        check("durable", Severity.ERROR, holds="", why="", remedy="")(lambda _: [])


@pytest.mark.parametrize("code", CHECKS)
def test_every_check_says_why_and_what_to_do(code: str) -> None:
    one = CHECKS[code]
    assert min(len(one.holds), len(one.why), len(one.remedy)) > 10
    assert one.why.endswith(".")
    assert not one.remedy.endswith(".")
    assert one.look.__doc__
