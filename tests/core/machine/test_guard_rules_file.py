"""The guards file: what it attaches, and how its mistakes are told."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import pytest
from celery import Celery

from interlock.core.errors import ConfigurationError
from interlock.core.machine import guards
from interlock.core.machine.guard_rules import GuardRule, rules_of
from interlock.core.machine.guard_rules_file import load_guard_rules
from interlock.core.settings import Settings
from interlock.signals.runtime import Runtime
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUN, STEP = "workflow_run", "workflow_step"


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Write a guards file."""

    def write(text: str) -> Path:
        path = tmp_path / "guards.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


GOOD = """\
guards:
  - entity: workflow_run
    from: planning
    to: executing
    guard: tests.office_hours
    workflow: nightly-report
  - {entity: workflow_step, from: pending, to: running, guard: [tests.office_hours, tests.broken], step: publish}
"""


def test_a_file_attaches_guards_for_all_or_by_the_name_of_the_workflow_and_the_step(
    written: Callable[[str], Path],
) -> None:
    path = written(GOOD)
    first, second = load_guard_rules(path).all
    assert first == GuardRule(
        RUN, "planning", "executing", ("tests.office_hours",), workflow="nightly-report", place=f"{path}:2"
    )
    assert second == GuardRule(
        STEP, "pending", "running", ("tests.office_hours", "tests.broken"), step="publish", place=f"{path}:7"
    )


def test_a_name_that_yaml_takes_for_a_number_or_a_word_is_a_name(written: Callable[[str], Path]) -> None:
    (rule,) = load_guard_rules(written(GOOD.partition("  - {")[0].replace("nightly-report", "2026"))).all
    assert rule.workflow == "2026"


def test_the_example_of_the_documentation_is_one(
    written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "guards.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"```(python|yaml)\n# \S+\n(.*?)```", text, re.DOTALL))
    monkeypatch.setattr(guards, "_registered", dict(guards._registered))
    exec(compile(blocks["python"], "docs/guards.md", "exec"), {"__name__": "shop_guards"})  # noqa: S102 - our own page
    rules = load_guard_rules(written(blocks["yaml"]))
    assert [(rule.workflow, rule.step, len(rule.guards)) for rule in rules.all] == [
        ("nightly-report", None, 1),
        (None, "publish", 1),
        (None, None, 2),
    ]
    broken = blocks["yaml"].replace("planning", "plannning").replace("to: running", "to: completed")
    with pytest.raises(ConfigurationError) as caught:
        load_guard_rules(written(broken))
    for line in re.findall(r"^  guards\.yaml:\d+:(.*?)(?:, …)?$", text, re.MULTILINE):
        assert line in str(caught.value)


def test_an_empty_list_attaches_nothing(written: Callable[[str], Path]) -> None:
    assert not load_guard_rules(written("guards: []\n"))


@pytest.mark.parametrize(
    ("right", "wrong", "place", "words"),
    [
        ("workflow_run", "workflow_rum", "2:13", 'guards[0].entity: unknown entity "workflow_rum" (did you mean "work'),
        (
            "planning",
            "plannning",
            "3:11",
            'guards[0].from: unknown state of workflow_run "plannning" (did you mean "pl',
        ),
        ("executing", "running", "4:9", 'guards[0].to: unknown state of workflow_run "running"'),
        (
            "executing",
            "completed",
            "4:9",
            "planning → completed is no edge of workflow_run; allowed: executing, failed",
        ),
        ("from: planning", "from: completed", "4:9", "allowed: nothing, it is terminal"),
        ("tests.office_hours\n", "tests.ofice_hours\n", "5:12", '(did you mean "tests.office_hours"?); known: '),
        ("tests.office_hours\n", "[]\n", "5:12", "guards[0].guard: names no guard"),
        ("tests.office_hours\n", "~\n", "5:12", "guards[0].guard: must be a name"),
        ("tests.office_hours\n", "{a: b}\n", "5:12", "guards[0].guard: must be a name"),
        ("workflow: n", "workfow: n", "6:5", 'guards[0].workfow: unknown field (did you mean "workflow"?)'),
        ("workflow: n", "from: n", "6:5", "guards[0].from: is there twice"),
        ("workflow: n", "step: n", "6:11", "guards[0].step: is only for workflow_step"),
        ("    to: executing\n", "", "2:5", "guards[0].to: is required"),
        ("guards:", "rules:", "1:1", "rules: unknown field; known: guards"),
        ("guards:", "guards: 7\nrest:", "1:9", "guards: must be a list"),
        ("  - {", "  - - {", "7:5", "guards[1]: must be an object with entity, from, to"),
        ("step: publish}", "step: publish", "8:1", "not YAML"),
        ("guards:", "guards: {", "2:3", "not YAML"),
        (GOOD, "", "1:1", "the file is empty"),
        (GOOD, "[]", "1:1", "file: must be an object with guards"),
        (GOOD, "guards: \x00", "1:1", "not YAML"),
        (GOOD, "[" * 100, "1:73", "nested more than 72 deep"),
        (GOOD, "- " * 100_000, "1:145", "nested more than 72 deep"),
    ],
)
def test_a_mistake_is_refused_at_load_with_its_place_and_what_was_meant(
    written: Callable[[str], Path],
    right: str,
    wrong: str,
    place: str,
    words: str,
) -> None:
    path = written(GOOD.replace(right, wrong, 1))
    with pytest.raises(ConfigurationError) as caught:
        load_guard_rules(path)
    (line,) = [line for line in str(caught.value).splitlines() if words in line]
    assert f"{path}:{place}: " in line, line


def test_every_mistake_of_a_file_is_named(written: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_guard_rules(
            written(GOOD.replace("planning", "plan").replace("pending", "done").replace("tests.broken", "x"))
        )
    assert [place.split(":")[1] for place in str(caught.value).splitlines()[1:]] == ["3", "7", "7"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"guards_file: .*nowhere\.yaml cannot be read: No such file"):
        load_guard_rules(tmp_path / "nowhere.yaml")


def test_a_guard_on_what_only_the_engine_reports_is_warned_about(
    written: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = written(GOOD.replace("executing", "completed").replace("planning", "executing"))
    with caplog.at_level(logging.WARNING, "interlock.guards"):
        assert load_guard_rules(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}:2: the engine does not ask before executing → completed, which only says what has happened",
    ]


def test_a_process_loads_the_file_of_its_settings_with_the_database(
    written: Callable[[str], Path], sqlite_url: str
) -> None:
    app = Celery("guarded", broker="memory://", set_as_current=False)
    settings = Settings.load({"interlock_guards_file": str(written(GOOD))}, {}, database_url=sqlite_url)
    runtime = Runtime(app, settings, dispatches=False, broadcasts=False)
    assert len(rules_of(runtime.database.engine).all) == 2
    runtime.close()
    with pytest.raises(ConfigurationError, match=r"guards\.yaml:1:1"):
        Runtime(app, settings.model_copy(update={"guards_file": str(written("rules: []"))}))
