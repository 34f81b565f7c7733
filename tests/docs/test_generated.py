"""What is generated in the documents follows from the code, and says all of it."""

from __future__ import annotations

import re

import pytest

from docs import generate
from docs.state_machine_page import Machine, machines
from interlock.core.settings import Settings
from tests.servers import ROOT

_PAGE = ROOT / "docs" / "state-machine.md"
_MACHINES = pytest.mark.parametrize("machine", machines(), ids=lambda machine: machine.title)


def test_no_generated_document_is_stale() -> None:
    names = [str(path.relative_to(ROOT)) for path in generate.stale()]
    assert not names, f"{', '.join(names)}: run `make docs`"


def test_check_names_the_file_and_the_command_that_renews_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "expected", lambda: {_PAGE: "other"})
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/state-machine.md is stale: run `make docs`\n"
    assert _PAGE.read_text(encoding="utf-8") != "other"


@_MACHINES
def test_every_state_has_its_meaning_and_nothing_else_has(machine: Machine) -> None:
    assert set(machine.meanings) == set(machine.table.targets)
    assert all(text.endswith(".") for text in machine.meanings.values())


@_MACHINES
def test_every_edge_says_who_moves_along_it_and_nothing_else_does(machine: Machine) -> None:
    described = {(source, target): text for source, texts in machine.edges.items() for target, text in texts.items()}
    assert set(described) == set(machine.table.edges())
    assert all(text.endswith(".") for text in described.values())


@_MACHINES
def test_the_diagram_has_every_edge_of_the_table_and_no_other(machine: Machine) -> None:
    """Read back from the page, not from what rendered it."""
    section = _PAGE.read_text(encoding="utf-8").partition(f"\n## {machine.title}\n")[2]
    diagram = section.partition("```mermaid\n")[2].partition("```")[0]
    drawn = re.findall(r"^    (\w+) --> (\w+)(?:: \[(.*)\])?$", diagram, re.MULTILINE)
    guards = {edge: ", ".join(machine.table.guards.get(edge, ())) for edge in machine.table.edges()}
    assert {(source, target): names for source, target, names in drawn} == guards


def test_the_settings_of_the_readme_are_those_of_the_code() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Configuration\n")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section.partition("\n## ")[0], re.MULTILINE)
    assert [name for name, _, _ in rows] == list(Settings.model_fields)
    for name, default, _ in rows:
        value = Settings.model_fields[name].get_default(call_default_factory=True)
        number = re.sub(r"[,`]| (s|bytes)$", "", default)
        assert number == ("none" if value in (None, {}) else str(value)), name
