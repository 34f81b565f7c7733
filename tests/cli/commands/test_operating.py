from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import RUN, step_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.cli.conftest import FakeClient

URL = ("--database-url", "sqlite://")


@pytest.mark.parametrize(
    ("words", "call", "state"),
    [
        (("pause", RUN), ("pause", RUN, None, None, "interrupt"), "paused"),
        (
            ("pause", RUN, "--mode", "drain", "--reason", "bad feed"),
            ("pause", RUN, None, "bad feed", "drain"),
            "paused",
        ),
        (("resume", RUN, "--reason", "fixed"), ("resume", RUN, None, "fixed"), "executing"),
        (("cancel", RUN), ("cancel", RUN, None), "cancelled"),
    ],
    ids=["pause", "pause in a mode", "resume", "cancel"],
)
def test_a_verb_is_carried_out_and_answered_with_the_state(
    client: FakeClient,
    cli: Callable[..., Result],
    words: tuple[str, ...],
    call: tuple[Any, ...],
    state: str,
) -> None:
    result = cli(*URL, *words)
    assert result.exit_code == 0
    assert client.calls == [call]
    assert result.stdout == f"run {RUN} is {state}\n"
    client.run["status"] = state
    assert json.loads(cli(*URL, *words, "--json").stdout) == {"run_id": RUN, "status": state}


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_verb_on_one_step_is_answered_with_both_states(
    client: FakeClient,
    cli: Callable[..., Result],
    verb: str,
) -> None:
    client.run["steps"] = [step_document("pack", "waiting_approval")]
    result = cli(*URL, verb, RUN, "pack")
    assert client.calls[0][:3] == (verb, RUN, "pack")
    assert result.stdout.startswith("step pack is waiting approval, run ")
    assert json.loads(cli(*URL, verb, RUN, "pack", "--json").stdout)["step_status"] == "waiting_approval"


def test_an_unknown_mode_is_a_usage_error(client: FakeClient, cli: Callable[..., Result]) -> None:
    assert cli(*URL, "pause", RUN, "--mode", "gently").exit_code == 2
    assert client.calls == []
