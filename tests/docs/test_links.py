"""Whatever a document points at exists: files, headings, tests, commands."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import TYPE_CHECKING

import click
import pytest

import interlock as interlock_package
from interlock import Client
from interlock.cli.main import interlock
from tests.servers import ROOT

from .reading import DOCUMENTS, anchors, blocks, inline_code, links

if TYPE_CHECKING:
    from pathlib import Path

_EACH = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
_README = ROOT / "README.md"
_ARCHITECTURE = ROOT / "ARCHITECTURE.md"
_TEST_ID = re.compile(r"^(tests/[\w/]+\.py)::(test_\w+)$")
_PATH = re.compile(r"^(?:core|signals|worker|client|cli|migrations|tests|docs|examples|src)/[\w./-]*$")
_INVARIANTS = 9


@_EACH
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for target, anchor in links(document):
        assert target.exists(), f"{document.name} links to {target.relative_to(ROOT)}, which is not there"
        assert not anchor or anchor in anchors(target), f"{document.name}: no heading #{anchor} in {target.name}"


@_EACH
def test_every_file_that_is_named_exists(document: Path) -> None:
    for name in inline_code(document):
        if _PATH.match(name):
            assert (ROOT / name).exists(), f"{document.name} names {name}, which is not there"


@_EACH
def test_every_test_that_is_named_exists(document: Path) -> None:
    for name in inline_code(document):
        found = _TEST_ID.match(name)
        assert "::" not in name or found, f"{document.name}: {name} is no test's id"
        if found:
            assert found[2] in _tests_of(ROOT / found[1]), f"{document.name} names {name}, which is not there"


def test_every_invariant_names_a_test_that_tries_to_break_it() -> None:
    section = _ARCHITECTURE.read_text(encoding="utf-8").partition("\n## Invariants")[2]
    rows = re.findall(r"^\| (\d) \| .+ \| (.+) \|$", section, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, _INVARIANTS + 1))
    assert all("::test_" in tests for _, tests in rows)


def test_every_decision_has_the_form_of_one() -> None:
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [path.name[:4] for path in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        assert {"context", "decision", "consequences"} <= anchors(path), path.name


@_EACH
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    named = {word for code in _all_code(document) for word in re.findall(r"\bmake ([a-z-]+)\b", code)}
    assert named <= set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


@_EACH
def test_every_command_that_is_named_exists_with_the_options_that_it_is_given(document: Path) -> None:
    for code in _all_code(document):
        for line in re.findall(r"\binterlock ((?:-A \S+ )?[a-z][^\n)]*)", code):
            _check(re.sub(r"^-A \S+ ", "", line).split())


def test_what_the_readme_calls_missing_is_missing() -> None:
    """When it comes, the document has to follow."""
    section = _README.read_text(encoding="utf-8").partition("\n## What is not there yet\n")[2].partition("\n## ")[0]
    missing = set(re.findall(r"^- `(\w+)`|, and `(\w+)`", section, re.MULTILINE))
    named = {name for pair in missing for name in pair if name}
    assert section
    there = {*interlock.list_commands(click.Context(interlock)), *dir(Client), *dir(interlock_package)}
    assert not named & there


def _check(words: list[str]) -> None:
    """Find the command of a line, inside of groups as well, and its options."""
    group, context = interlock, click.Context(interlock)
    command = group.get_command(context, words[0])
    if isinstance(command, click.Group):
        command = command.get_command(context, words[1])
    assert command is not None, f"`interlock {' '.join(words)}`: there is no such command"
    options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    given = {word for word in words if re.fullmatch(r"-{1,2}[A-Za-z][\w-]*", word)}
    assert given <= options | {"--help"}, f"`interlock {' '.join(words)}`: {given - options}"


def _all_code(document: Path) -> list[str]:
    return [*inline_code(document), *blocks(document, "console")]


@cache
def _tests_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))
