"""What `interlock doctor` prints, its exit codes, and how it asks many parts at once."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from rich.console import Console

from interlock import install
from interlock.cli.doctor.ask_app import app_facts, routes
from interlock.cli.doctor.ask_broker import ask_broker_redis, ask_events
from interlock.cli.doctor.ask_database import filesystem_of
from interlock.cli.doctor.checks import CHECKS
from interlock.cli.doctor.command import examine, show
from interlock.cli.doctor.facts import Away, Facts
from interlock.cli.doctor.findings import Severity
from interlock.cli.doctor.registry import check
from interlock.cli.doctor.together import ask_all
from interlock.cli.output.screen import Screen
from interlock.core.settings import Settings
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


# the registry


def test_two_checks_cannot_have_one_name() -> None:
    with pytest.raises(ValueError, match="durable"):
        check("durable", Severity.ERROR, holds="", why="", remedy="")(lambda _: [])


@pytest.mark.parametrize("code", CHECKS)
def test_every_check_says_why_and_what_to_do(code: str) -> None:
    one = CHECKS[code]
    assert min(len(one.holds), len(one.why), len(one.remedy)) > 10
    assert one.why.endswith(".")
    assert not one.remedy.endswith(".")
    assert one.look.__doc__


# asking


def test_a_question_that_hangs_delays_no_other() -> None:
    hang = threading.Event()
    began = time.monotonic()
    answers = ask_all({"hanging": hang.wait, "quick": lambda: 1, "broken": lambda: 1 // 0}, 0.2)
    assert time.monotonic() - began < 5
    hang.set()
    assert answers["quick"] == 1
    assert answers["hanging"] == Away("hanging: no answer within 0.2 s")
    assert answers["broken"] == Away("broken: integer division or modulo by zero")


def test_an_error_is_told_without_passwords() -> None:
    def refuse() -> None:
        message = "cannot reach redis://:secret@host/0\nand a second line"
        raise OSError(message)

    assert ask_all({"x": refuse}, 1.0) == {"x": Away("x: cannot reach redis://***@host/0")}


def test_the_file_system_is_that_of_the_longest_mount_point(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:21 / / rw - ext4 /dev/sda rw\n"
        "30 22 0:40 / /srv rw shared:1 - nfs4 host:/x rw\n"
        "31 22 0:41 / /srv/my\\040disk rw - xfs /dev/sdb rw\n"
    )
    assert filesystem_of(Path("/srv/a.db"), mounts) == "nfs4"
    assert filesystem_of(Path("/srv/my disk/a.db"), mounts) == "xfs"
    assert filesystem_of(Path("/srvother/a.db"), mounts) == "ext4"
    assert filesystem_of(Path("/a.db"), tmp_path / "none") == ""
    assert filesystem_of(tmp_path / "a.db") != "", "this machine tells"


def test_what_an_app_tells_of_itself(tmp_path: Path) -> None:
    app = Celery("facts", set_as_current=False)
    app.conf.task_routes = {"facts.slow": {"queue": "slow"}}

    @app.task(name="facts.late", acks_late=True, reject_on_worker_lost=True)
    def late() -> None:
        """Acknowledge late."""

    guards = tmp_path / "guards.yaml"
    guards.write_text("guards: 3\n")
    before = app_facts(app, Settings(guards_file=str(guards), app="facts:app"))
    assert (before.is_installed, before.import_path) == (False, "facts:app")
    assert before.late_tasks == before.requeued_tasks == ("facts.late",)
    assert before.guards_fault is not None
    assert app_facts(install(app), Settings()).is_installed
    assert app_facts(app, Settings()).import_path is None, "it is in no module"
    assert routes(app, ["facts.slow", "facts.late"]) == {"facts.slow": "slow", "facts.late": "celery"}


def test_a_router_that_fails_only_leaves_its_route_out() -> None:
    def router(*_: Any, **__: Any) -> None:
        raise RuntimeError

    app = Celery("facts", set_as_current=False)
    app.conf.task_routes = (router,)
    assert routes(app, ["facts.slow"]) == {}


def test_without_a_redis_for_events_there_is_none_to_miss() -> None:
    away = ask_events(None, 1.0)
    assert isinstance(away, Away)
    assert not away.is_fault


def test_a_broker_that_is_no_redis_has_no_eviction() -> None:
    away = ask_broker_redis(Celery("memory", broker="memory://", set_as_current=False))
    assert away == Away("the broker is no Redis", is_fault=False)


@pytest.mark.integration
def test_help_does_not_load_celery() -> None:
    """A second that a help text need not take."""
    code = (
        "import sys; from click.testing import CliRunner; from interlock.cli.main import interlock;"
        "assert CliRunner().invoke(interlock, ['doctor', '--help']).exit_code == 0;"
        "print(sorted({'celery', 'kombu', 'redis'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
