from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from interlock.cli.commands.following import follow
from interlock.cli.output.screen import Screen
from tests.cli.conftest import RUN, change, run_document, step_document, story

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.cli.conftest import FakeClient

URL = ("--database-url", "sqlite://")


# --- on a terminal


def _terminal(client: FakeClient, height: int = 24) -> str:
    screen = Screen()
    screen.out = Console(file=StringIO(), force_terminal=True, width=100, height=height, color_system=None)
    follow(client, RUN, screen)
    output: str = screen.out.file.getvalue()  # type: ignore[attr-defined]
    return output.rpartition("order")[2]  # the last picture


def test_the_last_picture_has_each_step_with_state_attempt_and_time(client: FakeClient) -> None:
    client.run = run_document("executing", [step_document("pack")])
    client.changes = story()
    picture = _terminal(client)
    assert "✓ completed" in picture
    assert "1/1 steps" in picture
    assert "attempt 2" in picture
    assert "3.0 s" in picture


@pytest.mark.parametrize(("steps", "height"), [(60, 80), (30, 12)], ids=["many steps", "a low terminal"])
def test_what_does_not_fit_becomes_a_summary(client: FakeClient, steps: int, height: int) -> None:
    client.run = run_document("executing", [step_document(f"s{number}") for number in range(steps)])
    client.changes = [change(number + 1, "completed", f"s{number}") for number in range(steps)]
    picture = _terminal(client, height)
    assert f"✓ completed {steps}" in picture
    assert f"s{steps - 1} " in picture
    assert "s0 " not in picture
    assert len(picture.splitlines()) <= height


# --- the command


def test_watch_prints_a_line_per_change_in_a_pipe(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.changes = story()
    result = cli(*URL, "watch", RUN)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 7
    assert "pack" in lines[4]
    assert "running, attempt 2" in lines[4]
    assert "(ValueError: no box)" in lines[3]


def test_watch_prints_json_lines_for_programs(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.changes = story()
    result = cli(*URL, "watch", RUN, "--json", "--after", "5")
    assert [json.loads(line)["seq"] for line in result.stdout.splitlines()] == [6, 7]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_watch_fails_unless_the_run_completes(client: FakeClient, cli: Callable[..., Result], end: str) -> None:
    client.changes = story(end)
    assert cli(*URL, "watch", RUN).exit_code == 1


def test_watch_of_a_run_that_is_over_tells_by_its_state(client: FakeClient, cli: Callable[..., Result]) -> None:
    """Nothing happens behind the last change; the exit code is that of the run all the same."""
    client.run["status"] = "failed"
    client.changes = story("failed")
    assert cli(*URL, "watch", RUN, "--after", "7").exit_code == 1


def test_an_interrupted_watch_says_how_to_go_on_and_ends_nothing(
    client: FakeClient, cli: Callable[..., Result]
) -> None:
    client.changes, client.interrupt_watch = story()[:3], True
    result = cli(*URL, "watch", RUN)
    assert result.exit_code == 130
    assert f"interlock watch {RUN}" in result.stderr
    assert f"interlock cancel {RUN}" in result.stderr
    assert not any(verb == "cancel" for verb, *_ in client.calls)
