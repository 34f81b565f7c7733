"""`approve`, `reject`, `retry`, `settle`, `rerun`, `explain`: what they ask for and what they print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core.errors import AlreadyDecided
from tests.cli.conftest import OTHER_RUN, RUN, step_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.cli.conftest import FakeClient

URL = ("--database-url", "sqlite://")


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (("approve", RUN, "pack", "--comment", "ok"), ("approve", RUN, "pack", "ok")),
        (("reject", RUN, "pack"), ("reject", RUN, "pack", None)),
        (("retry", RUN, "pack", "--reason", "fixed"), ("retry", RUN, "pack", "fixed")),
        (("settle", RUN, "pack", '{"n": 1}', "--reason", "by hand"), ("settle", RUN, "pack", {"n": 1}, "by hand")),
    ],
    ids=["approve", "reject", "retry", "settle"],
)
def test_a_verb_on_a_step_is_carried_out_and_answered_with_its_state(
    client: FakeClient,
    cli: Callable[..., Result],
    words: tuple[str, ...],
    call: tuple[Any, ...],
) -> None:
    client.run["steps"] = [step_document("pack", "running")]
    result = cli(*URL, *words)
    assert result.exit_code == 0, result.stderr
    assert client.calls == [call]
    assert result.stdout.startswith("step pack is running, run ")
    assert json.loads(cli(*URL, *words, "--json").stdout)["step_status"] == "running"


def test_rerun_prints_the_new_run(client: FakeClient, cli: Callable[..., Result]) -> None:
    result = cli(*URL, "rerun", RUN, "--json")
    assert json.loads(result.stdout) == {"run_id": OTHER_RUN, "forked_from": RUN}
    assert client.calls == [("rerun", RUN, None)]


def test_settle_wants_json_and_a_reason(client: FakeClient, cli: Callable[..., Result]) -> None:
    not_json = cli(*URL, "settle", RUN, "pack", "paid", "--reason", "x")
    assert not_json.exit_code == 2
    assert "RESULT" in not_json.stderr
    assert cli(*URL, "settle", RUN, "pack", "1").exit_code == 2
    assert client.calls == []


def test_a_second_decision_is_told_who_was_first(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.error = AlreadyDecided("approve", "rejected", "ann")
    result = cli(*URL, "approve", RUN, "pack")
    assert result.exit_code == 1
    assert "already decided: rejected by ann" in result.stderr
