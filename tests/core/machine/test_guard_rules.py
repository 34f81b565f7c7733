"""Guards attached to edges: what one that does not hold does to each kind of transition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from interlock.core import GuardRefused, StateMachine, WorkflowController
from interlock.core.attempts.outcomes import Failure
from interlock.core.database.types import seconds_after
from interlock.core.machine.guard_rules import attach_rules, rules_of
from tests.core.office_hours import asked, closed
from tests.core.rows import counted, step, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core import Database
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

RUN, STEP = "workflow_run", "workflow_step"


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
    postponed = rows.run(run_id).start_at - datetime.now(UTC)
    assert timedelta(seconds=20) < postponed <= timedelta(seconds=30)  # redispatch_s
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


# cost


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
