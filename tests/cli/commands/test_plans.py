from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import RUN, run_document, step_document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tests.cli.conftest import FakeClient

GOOD = "name: order\ntask_description: Deliver\nsteps:\n- {key: a, task: t.a}\n- {key: b, task: t.b, after: [a]}\n"
BAD = "name: order\ntask_description: Deliver\nsteps:\n- {key: a, task: t.a, after: [gone]}\n- {key: a, task: t.b}\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.yaml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "bad.yaml").write_text(BAD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("files")
def test_a_valid_file_is_summed_up(cli: Callable[..., Result]) -> None:
    result = cli("validate", "good.yaml")
    assert (result.exit_code, result.stdout) == (0, "good.yaml: order, 2 steps in 2 levels\n")


@pytest.mark.usefixtures("files")
def test_every_fault_is_printed_with_its_place(cli: Callable[..., Result]) -> None:
    result = cli("validate", "good.yaml", "bad.yaml")
    assert result.exit_code == 1
    faults = [line for line in result.stdout.splitlines() if line.startswith("bad.yaml:")]
    assert len(faults) >= 2
    assert {line.split(":")[1] for line in faults} == {"4", "5"}
    documents = json.loads(cli("validate", "good.yaml", "bad.yaml", "--json").stdout)
    assert [document["valid"] for document in documents] == [True, False]


@pytest.mark.usefixtures("files")
def test_with_an_app_unknown_tasks_are_faults(cli: Callable[..., Result]) -> None:
    result = cli("validate", "good.yaml", "-A", "interlock.worker")
    assert result.exit_code == 1
    assert "t.a" in result.stdout


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("style", "begins"), [("mermaid", "flowchart TD"), ("dot", "digraph")])
def test_a_file_is_drawn(cli: Callable[..., Result], style: str, begins: str) -> None:
    assert cli("graph", "good.yaml", "--format", style).stdout.startswith(begins)


def test_a_run_is_drawn_in_the_colours_of_its_states(client: FakeClient, cli: Callable[..., Result]) -> None:
    steps = [
        step_document("a", "completed"),
        step_document("b", "failed", after=["a"]),
        step_document("gate", task=None),
    ]
    client.run = run_document("failed", steps)
    text = cli("--database-url", "sqlite://", "graph", RUN).stdout
    assert "s0 --> s1" in text
    assert "class s1 failed" in text


def test_a_missing_file_is_a_usage_error(cli: Callable[..., Result]) -> None:
    result = cli("validate", "gone.yaml")
    assert result.exit_code == 2
    assert "gone.yaml: No such file" in result.stderr
