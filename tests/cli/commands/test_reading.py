from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import NOW, RUN, change, run_document, step_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.cli.conftest import FakeClient


URL = ("--database-url", "sqlite://")


def test_status_shows_the_run_and_each_step(client: FakeClient, cli: Callable[..., Result]) -> None:
    steps = [
        step_document("fetch", "completed", attempt=1),
        step_document("pack", "failed", attempt=3, error="Traceback…\nValueError: no box"),
        step_document("ship", "running", attempt=1, claimed_by="w1@host"),
    ]
    client.run = run_document("executing", steps)
    result = cli(*URL, "status", RUN)
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.output.splitlines() if line.split()}
    assert "✓ completed" in rows["fetch"]
    assert "ValueError: no box" in rows["pack"]
    assert " 3 " in rows["pack"]
    assert "on w1@host" in rows["ship"]
    assert "Deliver an order" in rows["workflow"]
    assert client.closed


def test_status_of_a_large_run_leaves_out_what_is_quiet(client: FakeClient, cli: Callable[..., Result]) -> None:
    steps = [step_document(f"s{number}", "completed") for number in range(60)] + [step_document("odd", "failed")]
    client.run = run_document("executing", steps)
    short = cli(*URL, "status", RUN)
    assert "s59" not in short.stdout
    assert "odd" in short.stdout
    assert "60 more" in short.stderr
    assert "s59" in cli(*URL, "status", RUN, "--all").stdout


def test_status_as_json_is_the_document_itself(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.run = run_document("executing", [step_document("a")])
    result = cli(*URL, "--json", "status", RUN)
    assert json.loads(result.stdout) == client.run
    assert len(result.stdout.splitlines()) == 1


def test_a_paused_run_says_who_paused_it_and_what_still_drains(client: FakeClient, cli: Callable[..., Result]) -> None:
    pause = {"mode": "drain", "by": "ann", "at": NOW.isoformat(), "draining": 2}
    client.run = run_document("paused", pause=pause)
    output = cli(*URL, "status", RUN).output
    assert "by ann" in output
    assert "2 steps still draining" in output


def test_list_shows_full_ids_and_progress(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.runs = [run_document("executing") | {"steps": 1200, "steps_completed": 1000}]
    line = cli(*URL, "list").stdout.splitlines()[1]
    assert line.split()[0] == RUN
    assert "1,000/1,200" in line
    assert "5 min ago" in line


def test_list_hands_its_filters_over(client: FakeClient, cli: Callable[..., Result]) -> None:
    result = cli(*URL, "list", "--status", "failed", "--name", "order", "--since", "2h", "--until", "2026-01-31T08:00Z")
    assert result.exit_code == 0
    (_, filters), *_ = client.calls
    assert filters["status"] == "failed"
    assert filters["name"] == "order"
    assert filters["limit"] == 50
    assert abs(datetime.now(UTC) - timedelta(hours=2) - filters["created_after"]) < timedelta(minutes=1)
    assert filters["created_before"] == datetime(2026, 1, 31, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    "words",
    [("--status", "happy"), ("--since", "yesterdayish"), ("--limit", "0")],
    ids=["state", "time", "limit"],
)
def test_a_wrong_filter_is_a_usage_error_that_names_it(
    client: FakeClient,
    cli: Callable[..., Result],
    words: tuple[str, str],
) -> None:
    result = cli(*URL, "list", *words)
    assert result.exit_code == 2
    assert words[0] in result.output
    assert client.calls == []


def test_an_empty_list_says_so_to_people_and_is_empty_for_programs(
    client: FakeClient,  # noqa: ARG001 - answers with no runs
    cli: Callable[..., Result],
) -> None:
    assert "no workflow runs" in cli(*URL, "list").stderr
    assert json.loads(cli(*URL, "list", "--json").stdout) == []


def _changes() -> list[Any]:
    return [
        change(1, "draft", transitioned_by="ann", reason="created"),
        change(2, "pending", "pack"),
        change(3, "running", "pack", from_state="pending", attempt=1),
    ]


def test_history_shows_who_did_what_and_why(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.changes = _changes()
    lines = cli(*URL, "history", RUN).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    assert "ann" in lines[1]
    assert "created" in lines[1]
    assert "pending → ● running" in lines[3]


def test_history_is_cut_by_seq_and_from_the_end(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.changes = _changes()
    assert len(cli(*URL, "history", RUN, "--after", "1").stdout.splitlines()) == 3
    only = json.loads(cli(*URL, "--json", "history", RUN, "--last", "1").stdout)
    assert [row["seq"] for row in only] == [3]


def test_result_is_json_also_for_people(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.results = {"total": [1, "ü"]}
    assert json.loads(cli(*URL, "result", RUN, "total").stdout) == {"total": [1, "ü"]}
    assert client.calls == [("result", RUN, "total")]


def test_a_run_of_nobody_is_refused(client: FakeClient, cli: Callable[..., Result]) -> None:  # noqa: ARG001 - knows RUN alone
    result = cli(*URL, "status", "other")
    assert result.exit_code == 1
    assert "no workflow run 'other'" in result.stderr


def test_explain_prints_a_summary_and_the_reasons(client: FakeClient, cli: Callable[..., Result]) -> None:
    client.explanation = {
        "run_id": RUN,
        "status": "paused",
        "summary": "It is paused.",
        "reasons": [{"kind": "paused", "step": None, "text": "ann paused it: bad feed"}],
    }
    assert cli(*URL, "explain", RUN).stdout == "It is paused.\n  ann paused it: bad feed\n"
    assert json.loads(cli(*URL, "explain", RUN, "--json").stdout) == client.explanation
