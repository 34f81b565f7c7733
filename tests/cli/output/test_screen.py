"""Tables on a terminal and in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.conftest import RUN, run_document, step_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.cli.conftest import FakeClient


URL = ("--database-url", "sqlite://")


def test_in_a_pipe_nothing_is_cut_off_and_there_is_no_colour(client: FakeClient, cli: Callable[..., Result]) -> None:
    error = "ValueError: " + "long " * 30 + "end"
    client.run = run_document("failed", [step_document("k" * 150, "failed", error=error)])
    output = cli(*URL, "status", RUN).stdout
    assert "k" * 150 in output
    assert error in output
    assert "\x1b" not in output
