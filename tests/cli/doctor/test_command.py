"""What `interlock doctor` prints, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from interlock.cli.doctor.checks import CHECKS
from interlock.cli.doctor.command import examine, show
from interlock.cli.doctor.facts import Away, Facts
from interlock.cli.output.screen import Screen
from tests.cli.doctor.sound import SOUND, with_celery, with_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

WARNED = with_celery(worker_prefetch_multiplier=4)
BROKEN = with_server(WARNED, fsync="off")


@pytest.fixture
def doctor(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `interlock doctor` on facts that are given."""

    def run(facts: Facts, *words: str) -> Result:
        monkeypatch.setattr("interlock.cli.doctor.gathering.gather", lambda *_: facts)
        return cli("--database-url", "sqlite://", "doctor", *words)

    return run


# what is printed


def test_in_a_pipe_each_finding_is_a_line_the_worst_first_with_why_and_what_to_do(
    doctor: Callable[..., Result],
) -> None:
    lines = doctor(BROKEN).stdout.splitlines()
    assert lines[0].split() == ["error", "durable", "`fsync`", "is", "off"]
    assert lines[1].strip() == f"why: {CHECKS['durable'].why}"
    assert lines[2].strip() == f"do:  {CHECKS['durable'].remedy}"
    assert lines[3].split()[:2] == ["warning", "prefetch"]
    assert lines[6].split()[:2] == ["ok", "database"]
    assert lines[-1].startswith("1 error, 1 warning, 0 not looked at, ")
    assert "✓" not in doctor(BROKEN).stdout


def test_on_a_terminal_marks_stand_for_the_words() -> None:
    screen = Screen()
    screen.out = Console(file=StringIO(), force_terminal=True, width=200, color_system=None)
    show(examine(replace(BROKEN, engine_or_away=Away("the broker did not answer"))), screen)
    output = screen.out.file.getvalue()
    assert "✗ durable " in output
    assert "! prefetch " in output
    assert "✓ database " in output
    assert "? not looked at, because the broker did not answer: engine" in output


def test_what_was_not_looked_at_is_one_line_for_each_reason(doctor: Callable[..., Result]) -> None:
    away = Away("the broker did not answer")
    facts = replace(SOUND, workers_or_away=away, engine_or_away=away, work_or_away=Away("no tables"))
    unknown = [line for line in doctor(facts).stdout.splitlines() if line.startswith("unknown")]
    assert len(unknown) == 2
    assert any(line.endswith("workers, engine, consumers, known_tasks, pool, installed") for line in unknown)


def test_for_programs_all_of_it_is_one_document(doctor: Callable[..., Result]) -> None:
    document = json.loads(doctor(BROKEN, "--json").stdout)
    assert (document["ok"], document["counts"]["error"], document["counts"]["warning"]) == (False, 1, 1)
    assert document["findings"][0] == {
        "code": "durable",
        "severity": "error",
        "what": "`fsync` is off",
        "why": CHECKS["durable"].why,
        "remedy": CHECKS["durable"].remedy,
    }
    assert {"code": "database", "severity": "ok", "what": "the database answers", "why": "", "remedy": ""} in document[
        "findings"
    ]


@pytest.mark.parametrize(
    ("facts", "words", "code"),
    [
        (SOUND, (), 0),
        (SOUND, ("--strict",), 0),
        (WARNED, (), 0),
        (WARNED, ("--strict",), 1),
        (BROKEN, (), 1),
        (replace(SOUND, engine_or_away=Away("x")), ("--strict",), 0),
    ],
)
def test_the_exit_code_is_1_for_errors_and_strictly_for_warnings(
    doctor: Callable[..., Result], facts: Facts, words: tuple[str, ...], code: int
) -> None:
    assert doctor(facts, *words).exit_code == code


@pytest.mark.usefixtures("client")
def test_of_nothing_it_says_what_to_name(cli: Callable[..., Result]) -> None:
    result = cli("doctor")
    assert result.exit_code == 2
    assert "-A module:app" in result.stderr


def test_a_setting_that_does_not_fit_keeps_it_from_looking(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERLOCK_LEASE_S", "soon")
    result = cli("--database-url", "sqlite:////nowhere/x.db", "doctor")
    assert result.exit_code == 2
    assert "interlock_lease_s" in result.stderr
