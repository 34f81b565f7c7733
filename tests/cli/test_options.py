"""The shared options: where they may stand, and which one wins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from interlock.cli.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result


def test_an_option_after_the_command_wins_over_one_before_and_over_the_environment() -> None:
    options = Options(session="before").merged({"session": "after", "app": None})
    assert options.session_id == "after"
    os.environ["INTERLOCK_SESSION"] = "environment"
    try:
        assert options.with_environment().session_id == "after"
        assert Options().with_environment().session_id == "environment"
    finally:
        del os.environ["INTERLOCK_SESSION"]


def test_who_acts_is_the_login_at_this_host_unless_told() -> None:
    assert Options(actor="ann").actor_name == "ann"
    assert "@" in Options().actor_name


@pytest.mark.usefixtures("client")
def test_options_are_taken_before_and_after_the_command(cli: Callable[..., Result]) -> None:
    before = cli("--json", "--database-url", "sqlite://", "list")
    after = cli("list", "--json", "--database-url", "sqlite://")
    assert before.stdout == after.stdout == "[]\n"
