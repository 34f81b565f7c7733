"""Guards attached to edges: reading the file, and what a guard that says no does to each kind of move."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from interlock.core import GuardContext, GuardRefused, StateMachine, TransitionVetoed, WorkflowController, guard
from interlock.core.attempts.outcomes import Failure
from interlock.core.database.types import seconds_after
from interlock.core.errors import ConfigurationError
from interlock.core.machine import guards
from interlock.core.machine.guard_rules import GuardRule, GuardRules, attach_rules, rules_of
from interlock.core.machine.guard_rules_file import load_guard_rules
from interlock.core.settings import Settings
from interlock.signals.runtime import Runtime
from tests.core.rows import counted, step, steps
from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from interlock.core import Database
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

RUN, STEP = "workflow_run", "workflow_step"

closed: set[str] = set()
"""What the office does not let pass: keys of steps, or `*`."""
asked: list[GuardContext] = []


@guard("tests.office_hours")
def office_hours(context: GuardContext) -> bool:
    asked.append(context)
    return not closed & {"*", context.entity.get("key")}


@guard("tests.broken")
def broken(context: GuardContext) -> bool:
    return bool(context.entity["no such column"])


@pytest.fixture(autouse=True)
def _open_office() -> Iterator[None]:
    yield
    closed.clear()
    asked.clear()


@pytest.fixture
def attach(unchecked_database: Database, database: Database) -> Callable[..., None]:  # noqa: ARG001 - checked at the end
    """Attach `tests.office_hours` to an edge of the database."""

    def attach_rule(entity: str, source: str, target: str, **options: Any) -> None:
        rule = GuardRule(entity, source, target, ("tests.office_hours",), place="guards.yaml:3")
        rules = [*rules_of(unchecked_database.engine).all, replace(rule, **options)]
        attach_rules(unchecked_database.engine, GuardRules(rules))

    return attach_rule


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Write a guards file."""

    def write(text: str) -> Path:
        path = tmp_path / "guards.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


# the file

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


def test_a_guard_may_come_from_an_entry_point(written: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "tests.installed"

        def load(self) -> Callable[[GuardContext], bool]:
            return office_hours

    guards._from_entry_points.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(guards, "entry_points", lambda group: [Point()] if group == "interlock.guards" else [])
        path = written(GOOD.replace("tests.broken", "tests.installed"))
        assert load_guard_rules(path).all[1].guards[1] == "tests.installed"
    guards._from_entry_points.cache_clear()
    with pytest.raises(ConfigurationError, match=r'unknown guard "tests\.installed"'):
        load_guard_rules(path)


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


# what a caller asks for


def test_a_refused_call_writes_nothing_and_names_the_guard_and_where_it_is_attached(
    attach: Callable[..., None], controller: WorkflowController, rows: Rows
) -> None:
    attach(RUN, "executing", "paused")
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x", name="n")
    closed.add("*")
    before = rows.count()
    with pytest.raises(GuardRefused) as caught:
        controller.pause_workflow(run_id, "lunch", "ana")
    assert (caught.value.guard, caught.value.from_state, caught.value.to_state) == (
        "tests.office_hours",
        "executing",
        "paused",
    )
    assert "attached at guards.yaml:3" in str(caught.value)
    assert rows.count() == before
    context = asked[-1]
    assert (context.entity["name"], context.actor, context.reason) == ("n", "ana", "lunch")
    closed.clear()
    controller.pause_workflow(run_id)
    assert rows.run(run_id).status == "paused"


def test_a_rule_for_one_workflow_is_not_asked_for_others(
    attach: Callable[..., None], controller: WorkflowController
) -> None:
    attach(RUN, "draft", "planning", workflow="nightly")
    closed.add("*")
    controller.enqueue_workflow(steps("a"), task_description="x", name="daily")
    controller.enqueue_workflow(steps("a"), task_description="x")
    assert asked == []
    with pytest.raises(GuardRefused):
        controller.enqueue_workflow(steps("a"), task_description="x", name="nightly")


def test_a_guard_that_refuses_one_step_refuses_the_whole_cascade(
    attach: Callable[..., None], controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    attach(STEP, "running", "paused", step="b")
    run_id = controller.enqueue_workflow(steps("a", "b", "c"), task_description="x")
    for key in "abc":
        worker.claim(key)
    closed.add("b")
    before = rows.count()
    with pytest.raises(GuardRefused) as caught:
        controller.pause_workflow(run_id)
    assert caught.value.entity_id == rows.step(run_id, "b").id
    assert rows.count() == before
    assert rows.states(run_id) == {"a": "running", "b": "running", "c": "running"}
    assert [context.entity["key"] for context in asked] == ["b"]
    controller.cancel_workflow(run_id)  # another edge


def test_a_rule_for_a_mapped_step_is_one_for_its_items_and_not_for_namesakes(
    attach: Callable[..., None], controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    attach(STEP, "running", "paused", step="m")
    plan = [step("m", map={"over": "input"}), step("m.x"), step("mm")]
    run_id = controller.enqueue_workflow(plan, task_description="x", input=[1])
    for key in ("m.0", "m.x", "mm"):
        worker.claim(key)
    closed.add("m.0")
    with pytest.raises(GuardRefused):
        controller.pause_workflow(run_id)
    closed.clear()
    asked.clear()
    controller.pause_workflow(run_id)
    assert sorted(context.entity["key"] for context in asked) == ["m", "m.0"]
    assert set(rows.states(run_id).values()) == {"paused"}


def test_a_guard_that_fails_refuses_and_says_how(
    attach: Callable[..., None], controller: WorkflowController, rows: Rows
) -> None:
    attach(RUN, "executing", "paused", guards=("tests.broken",))
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    with pytest.raises(GuardRefused, match=r"refused by guard 'tests\.broken': it failed: .*no such column") as caught:
        controller.pause_workflow(run_id)
    assert caught.value.__class__ is GuardRefused
    assert rows.run(run_id).status == "executing"


def test_what_may_be_asked_for_now_is_told_with_the_attached_guards(
    attach: Callable[..., None], controller: WorkflowController, session: Session
) -> None:
    attach(RUN, "executing", "paused")
    attach(STEP, "pending", "skipped")
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    machine, of_steps = StateMachine(session, RUN), StateMachine(session, STEP)
    step_id = str(controller.get_workflow_status(run_id)["steps"][0]["step_id"])  # type: ignore[index]
    assert machine.can_transition_to(run_id, "paused")
    assert of_steps.get_allowed_transitions(step_id) == ["running", "skipped", "cancelled"]
    closed.add("*")
    assert not machine.can_transition_to(run_id, "paused")
    assert "paused" not in machine.get_allowed_transitions(run_id)
    assert of_steps.get_allowed_transitions(step_id) == ["running", "cancelled"]
    with pytest.raises(GuardRefused):
        of_steps.transition_to(step_id, "skipped")


def test_the_rules_hold_for_any_session_on_the_databases_engine_and_for_others_on_request(
    attach: Callable[..., None], unchecked_database: Database, core_url: str
) -> None:
    attach(RUN, "draft", "planning")
    closed.add("*")

    def enqueue(session: Session) -> None:
        WorkflowController(session).enqueue_workflow(steps("a"), task_description="x")

    with Session(unchecked_database.engine) as session, pytest.raises(GuardRefused):
        enqueue(session)
    url = unchecked_database.engine.url if "postgresql" in core_url else core_url
    for begun in (False, True):
        engine = create_engine(url)
        with Session(engine) as foreign:
            if begun:
                foreign.connection()
            attach_rules(foreign, rules_of(unchecked_database.engine))
            assert foreign.in_transaction() is begun
            with pytest.raises(GuardRefused):
                enqueue(foreign)
        engine.dispose()


def test_the_controllers_questions_take_the_attached_guards_into_account(
    attach: Callable[..., None], controller: WorkflowController, worker: WorkerDouble
) -> None:
    """True exactly where the call would succeed, for edges of the run and for one of its steps."""
    attach(STEP, "running", "paused", step="b")
    attach(STEP, "paused", "running", step="b")
    attach(RUN, "paused", "cancelled")
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    worker.claim("a")
    closed.add("b")
    assert controller.can_pause(run_id)  # b does not run
    closed.clear()
    worker.claim("b")
    for verb in ("pause", "resume"):
        closed.add("b")
        assert not getattr(controller, f"can_{verb}")(run_id)
        with pytest.raises(GuardRefused):
            getattr(controller, f"{verb}_workflow")(run_id)
        closed.clear()
        assert getattr(controller, f"can_{verb}")(run_id)
        getattr(controller, f"{verb}_workflow")(run_id)
    closed.add("*")
    assert controller.can_cancel(run_id)
    closed.clear()
    controller.pause_workflow(run_id)
    closed.add("*")
    assert not controller.can_cancel(run_id)


def test_a_rerun_takes_completed_steps_over_without_asking_whether_they_may_start(
    attach: Callable[..., None], controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    attach(STEP, "pending", "running")
    run_id = controller.enqueue_workflow([step("a"), step("b", "a")], task_description="x")
    worker.run("a")
    worker.run_failing("b")
    closed.add("*")
    again = controller.rerun_workflow(run_id)
    assert rows.states(again) == {"a": "completed", "b": "pending"}


# starts


def test_a_refused_claim_leaves_the_step_pending_and_it_is_offered_again(
    attach: Callable[..., None],
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    """Neither stranded nor hot: the message comes again after `redispatch_s`, doubled each time."""
    attach(STEP, "pending", "running", step="b")
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    worker.run("a")
    closed.add("b")
    waits = []
    for _ in range(3):
        _, claim = worker.offer("b")
        assert not claim.granted
        assert (rows.step(run_id, "b").status, rows.path(run_id, "b")) == ("pending", ["pending"])
        assert sweeper.sweep().redispatched == 0
        rows.make_due(run_id, "b", "dispatch_check_at")
        assert sweeper.sweep().redispatched == 1
        after = rows.step(run_id, "b").dispatch_check_at
        waits.append(round((after - datetime.now(UTC)).total_seconds() / 30))
    assert waits == [2, 4, 8]
    closed.clear()
    worker.run("b")
    assert rows.run(run_id).status == "completed"


def test_a_delayed_start_that_is_refused_is_put_off(
    attach: Callable[..., None],
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
) -> None:
    attach(RUN, "planning", "executing")
    later = datetime.now(UTC) + timedelta(hours=1)
    run_id = controller.enqueue_workflow(steps("a"), task_description="x", start_at=later)
    rows.set_run(run_id, start_at=seconds_after(-1))
    closed.add("*")
    assert sweeper.sweep().runs_started == 0
    assert (rows.run(run_id).status, rows.path(run_id)) == ("draft", ["draft"])
    put_off = rows.run(run_id).start_at - datetime.now(UTC)
    assert timedelta(seconds=20) < put_off <= timedelta(seconds=30)  # redispatch_s
    asked.clear()
    assert sweeper.sweep().runs_started == 0
    assert asked == []
    closed.clear()
    rows.set_run(run_id, start_at=seconds_after(-1))
    assert sweeper.sweep().runs_started == 1
    worker.run_all()
    assert rows.run(run_id).status == "completed"


# what has happened already


def test_what_workers_and_the_engine_report_is_not_asked(
    attach: Callable[..., None], controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    """A workflow can be kept from starting, not from having ended."""
    for source, target in (("running", "completed"), ("running", "failed"), ("failed", "running")):
        attach(STEP, source, target)
    attach(RUN, "executing", "completed")
    closed.add("*")
    plan = steps("a", retry={"max_attempts": 2, "initial_delay_s": 0.0})
    run_id = controller.enqueue_workflow(plan, task_description="x")
    worker.run_failing("a", Failure("error", "no"))
    worker.run("a")
    assert rows.run(run_id).status == "completed"
    assert asked == []


def test_a_persons_retry_is_asked(
    attach: Callable[..., None], controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    attach(STEP, "failed", "running")
    run_id = controller.enqueue_workflow([step("a", on_failure="continue"), step("b")], task_description="x")
    worker.run_failing("a")
    closed.add("*")
    with pytest.raises(GuardRefused):
        controller.retry_step(run_id, "a")
    assert rows.step(run_id, "a").status == "failed"
    closed.clear()
    controller.retry_step(run_id, "a")
    worker.run_all()
    assert rows.run(run_id).status == "completed"


# cost, and the other veto


def test_rules_for_other_moves_cost_not_a_statement(
    attach: Callable[..., None], controller: WorkflowController, worker: WorkerDouble, unchecked_database: Database
) -> None:
    taken = []
    for _ in range(2):
        with counted(unchecked_database.engine) as sent:
            run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
            worker.claim("a")
            controller.pause_workflow(run_id)
            controller.resume_workflow(run_id)
            controller.cancel_workflow(run_id)
        taken.append(len(sent))
        worker.queue.clear()
        attach(STEP, "pending", "skipped")
        attach(STEP, "running", "paused", workflow="another")
        attach(RUN, "executing", "paused", workflow="another")
    assert taken[0] == taken[1]


def test_a_veto_of_one_step_stops_the_whole_cascade(
    controller: WorkflowController, worker: WorkerDouble, database: Database, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b", "c"), task_description="x")
    for key in "abc":
        worker.claim(key)
    heard: list[tuple[str | None, str]] = []

    def veto(data: dict[str, Any]) -> None:
        heard.append((data["step"], data["to_state"]))
        if data["step"] == "b":
            raise TransitionVetoed

    database.emitter.on("state_changing", veto)
    worker.changes.clear()
    before = rows.count()
    for verb, state in (("pause", "paused"), ("cancel", "cancelled")):
        with pytest.raises(TransitionVetoed) as caught:
            getattr(controller, f"{verb}_workflow")(run_id)
        assert (caught.value.entity_id, caught.value.to_state) == (rows.step(run_id, "b").id, state)
        assert ("b", state) in heard
    assert (rows.count(), worker.changes) == (before, [])
    assert rows.run(run_id).status == "executing"
    assert set(rows.states(run_id).values()) == {"running"}
    database.emitter.off("state_changing", veto)
    controller.cancel_workflow(run_id)
