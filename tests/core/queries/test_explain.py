"""`explain`: each reason for which a run may stand still is found, and told with what to type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import GuardContext, WorkflowController, guard
from interlock.core.attempts.outcomes import Failure
from interlock.core.attempts.run_through import RunThroughOffer
from interlock.core.database.types import seconds_after
from interlock.core.errors import RunNotFound
from interlock.core.machine.guard_rules import GuardRule, GuardRules, attach_rules
from interlock.core.plan.run_through import kind_of
from interlock.core.queries.explain import explain
from tests.core.rows import counted, step, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core import Database
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

    Why = Callable[[str], dict[str, Any]]

pytestmark = pytest.mark.usefixtures("database")


@guard("tests.never")
def never(context: GuardContext) -> bool:  # noqa: ARG001 - a guard's signature
    return False


@pytest.fixture
def why(unchecked_database: Database) -> Why:
    """Explain a run of the default session."""

    def ask(run_id: str) -> dict[str, Any]:
        with unchecked_database.reading() as connection:
            return explain(connection, run_id, "default")

    return ask


def _only(explained: dict[str, Any], kind: str) -> dict[str, Any]:
    found = [reason for reason in explained["reasons"] if reason["kind"] == kind]
    assert len(found) == 1, explained
    return dict(found[0])


def _says(reason: dict[str, Any], *parts: str) -> None:
    for part in parts:
        assert part in reason["text"], reason["text"]


# the run


def test_a_run_of_another_session_is_not_found(controller: WorkflowController, unchecked_database: Database) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    with unchecked_database.reading() as connection, pytest.raises(RunNotFound):
        explain(connection, run_id, "other")


def test_a_draft_waits_for_somebody_to_start_it(controller: WorkflowController, why: Why) -> None:
    run = controller.create_workflow(name="report")
    explained = why(run.id)
    assert explained["summary"] == "Workflow report is draft. It is a draft, and nobody has started it."
    reason = _only(explained, "not_started")
    _says(reason, "Guard 'has_task_description' would not let it start", f"client.start('{run.id}')")


def test_a_draft_waits_for_its_start_time(
    controller: WorkflowController, why: Why, rows: Rows, unchecked_database: Database
) -> None:
    run = controller.create_workflow("x", plan=steps("a"))
    rows.set_run(run.id, start_at=seconds_after(10_800))
    _says(_only(why(run.id), "start_time"), "(in 3 h)", f"interlock cancel {run.id}")
    rows.set_run(run.id, start_at=seconds_after(-600))
    _says(_only(why(run.id), "start_time"), "(10 min ago)", "is a worker running?")
    rule = GuardRule("workflow_run", "draft", "planning", ("tests.never",))
    attach_rules(unchecked_database.engine, GuardRules([rule]))
    _says(_only(why(run.id), "guard"), "guard 'tests.never' does not let it start")


def test_a_run_that_is_being_planned_waits_for_its_plan(controller: WorkflowController, why: Why) -> None:
    run_id = controller.create_unplanned("x", transitioned_by="ana")
    _says(_only(why(run_id), "planning"), "asked for by ana", "no valid plan yet", "set_plan")


def test_a_paused_run_says_who_when_why_and_how_many_still_drain(
    controller: WorkflowController, worker: WorkerDouble, why: Why
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b", "c"), task_description="x")
    worker.claim("a")
    worker.claim("b")
    controller.pause_workflow(run_id, "disk full", "ana")
    reason = _only(why(run_id), "paused")
    assert (reason["by"], reason["reason"], reason["mode"], reason["draining"]) == ("ana", "disk full", "interrupt", 2)
    _says(reason, "Paused by ana at ", "disk full", "2 steps told to stop have not ended", f"interlock resume {run_id}")
    assert {item["step"] for item in why(run_id)["reasons"] if item["kind"] == "draining"} == {"a", "b"}


def test_a_run_that_a_failure_paused_says_how_to_settle_it(
    controller: WorkflowController, worker: WorkerDouble, why: Why
) -> None:
    run_id = controller.enqueue_workflow([step("a", on_failure="pause"), step("b", "a")], task_description="x")
    worker.run_failing("a", Failure("error", "ValueError: no"))
    explained = why(run_id)
    _says(_only(explained, "paused"), "Paused by engine", "step a failed: ValueError: no")
    _says(_only(explained, "failed"), "ValueError: no", f"interlock retry {run_id} a", f"interlock settle {run_id} a")
    controller.retry_step(run_id, "a")
    _says(_only(why(run_id), "failed"), "will be tried again when the workflow is resumed")


def test_an_ended_run_says_how_and_what_is_left_to_do(
    controller: WorkflowController, worker: WorkerDouble, why: Why
) -> None:
    completed, failed, cancelled = (
        controller.enqueue_workflow(steps(key), task_description="x") for key in ("a", "b", "c")
    )
    worker.run("a")
    worker.run_failing("b", Failure("error", "KeyError: 'n'"))
    controller.cancel_workflow(cancelled, "superseded", "ben")
    _says(_only(why(completed), "completed"), "It is completed since", f"interlock result {completed}")
    explained = why(failed)
    _says(explained["reasons"][0], "b: KeyError: 'n'", f"interlock rerun {failed}")
    _says(explained["reasons"][1], "Step b failed")
    _says(_only(why(cancelled), "cancelled"), "by ben: superseded", f"interlock rerun {cancelled}")
    assert "cancelled" in why(cancelled)["summary"]


def test_a_live_run_names_its_deadline(controller: WorkflowController, why: Why) -> None:
    plan = {"name": "n", "deadline_s": 3_600, "steps": steps("a")}
    run_id = controller.enqueue_workflow(plan, task_description="x")
    _says(_only(why(run_id), "deadline"), "(in 60 min)")


# its steps


def test_a_queued_step_says_since_when_how_often_it_was_sent_and_when_it_will_be_again(
    controller: WorkflowController, worker: WorkerDouble, why: Why, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow([step("a"), step("b", "a", queue="slow")], task_description="x")
    worker.run("a")
    rows.set_step(run_id, "b", dispatches=3)
    explained = why(run_id)
    reason = _only(explained, "queued")
    assert (reason["step"], reason["queue"], reason["dispatches"], reason["task"]) == ("b", "slow", 3, "tasks.b")
    assert reason["since"] == rows.step(run_id, "a").completed_at.isoformat()
    assert reason["next_dispatch_at"] == rows.step(run_id, "b").dispatch_check_at.isoformat()
    _says(reason, "waits in queue slow for a worker", "was sent 3 times", "sent again at", "(in ")
    assert explained["summary"] == "The workflow is executing: 1 step waiting for a worker."


def test_a_step_that_is_queued_again_waits_since_its_retry(
    controller: WorkflowController, worker: WorkerDouble, why: Why, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(
        steps("a", retry={"max_attempts": 2, "initial_delay_s": 0.0}), task_description="x"
    )
    worker.run_failing("a")
    reason = _only(why(run_id), "queued")
    assert reason["attempt"] == 2
    assert reason["since"] == rows.history(run_id)[-1].created_at.isoformat()


def test_a_held_step_says_by_whom_since_when_and_how_far_it_is(
    controller: WorkflowController, worker: WorkerDouble, why: Why, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(steps("a", timeout_s=90), task_description="x")
    worker.claim("a", "celery@one")
    rows.set_step(run_id, "a", progress={"done": 3, "total": 7, "message": "rows"})
    reason = _only(why(run_id), "held")
    assert (reason["worker"], reason["attempt"]) == ("celery@one", 1)
    _says(
        reason,
        "is run by celery@one since",
        "3 of 7 done (rows)",
        "lease holds until",
        "(in ",
        "its time limit is",
    )
    rows.set_step(run_id, "a", lease_until=seconds_after(-5))
    _says(_only(why(run_id), "held"), "has not been heard of", "calls the attempt lost")


def test_a_step_that_a_process_came_to_without_a_message_says_on_which_it_came(
    controller: WorkflowController, worker: WorkerDouble, why: Why
) -> None:
    plan = {"steps": [step("a"), step("b", "a")], "run_through": True}
    run_id = controller.enqueue_workflow(plan, task_description="x")
    worker.claim("a")
    worker.run_through("a", RunThroughOffer("the-message", "token", frozenset({kind_of("tasks.b", None)})))
    reason = _only(why(run_id), "held")
    _says(reason, "Step b is run by worker@1", "its process came to it on the message the-message")
    assert reason["carrier"] == "the-message"


def test_a_failed_step_says_why_and_when_it_is_tried_again(
    controller: WorkflowController, worker: WorkerDouble, why: Why
) -> None:
    retry = {"max_attempts": 3, "initial_delay_s": 180.0, "jitter": 0.0}
    run_id = controller.enqueue_workflow(steps("a", retry=retry), task_description="x")
    worker.run_failing("a", Failure("error", "ConnectionError: refused\n" + "x" * 1_000))
    reason = _only(why(run_id), "retry")
    assert (reason["failures"], len(reason["error"])) == (1, 1_025)
    _says(reason, "ConnectionError: refused x", "tried again at", "(in 3 min)", f"interlock retry {run_id} a")
    assert len(reason["text"]) < 600


def test_a_waiting_step_says_what_is_asked_of_whom_and_until_when(controller: WorkflowController, why: Why) -> None:
    approval = {"prompt": "Publish?", "approvers": ["ana", "ben"], "deadline_s": 10_800, "default": "approve"}
    run_id = controller.enqueue_workflow([{"key": "gate", "approval": approval}], task_description="x")
    explained = why(run_id)
    assert explained["status"] == "waiting_approval"
    reason = _only(explained, "approval")
    assert (reason["approvers"], reason["prompt"], reason["decision"]) == (["ana", "ben"], "Publish?", None)
    _says(
        reason,
        "“Publish?”",
        "ana or ben may decide",
        "it is approved at",
        "(in 3 h)",
        f"interlock approve {run_id} gate",
    )
    assert "1 step waiting for an approval" in explained["summary"]


def test_a_decision_made_while_paused_says_when_it_takes_effect(
    controller: WorkflowController, worker: WorkerDouble, why: Why
) -> None:
    plan = [{"key": "gate", "approval": {}}, step("a")]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    worker.claim("a")
    controller.pause_workflow(run_id)
    _says(_only(why(run_id), "approval"), "anyone who may send commands may decide")
    controller.approve_step(run_id, "gate", transitioned_by="ana")
    _says(_only(why(run_id), "approval"), "was approved by ana", "when the workflow is resumed")


def test_a_step_paused_by_itself_says_by_whom_and_how_it_goes_on(
    controller: WorkflowController, worker: WorkerDouble, why: Why
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    worker.claim("a")
    controller.pause_step(run_id, "a", "looks odd", "ana")
    reason = _only(why(run_id), "step_paused")
    assert (reason["step"], reason["by"], reason["reason"]) == ("a", "ana", "looks odd")
    _says(reason, "by ana", "looks odd", f"interlock resume {run_id} a")


def test_a_pending_step_says_which_steps_it_waits_for(
    controller: WorkflowController, worker: WorkerDouble, why: Why
) -> None:
    wide = [f"w{n}" for n in range(8)]
    plan = [step("a"), step("b"), *steps(*wide), step("c", "a b"), step("d", " ".join(wide))]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    worker.run("a")
    worker.claim("b")
    reasons = {reason["step"]: reason for reason in why(run_id)["reasons"]}
    assert reasons["c"]["waits_for"] == ["b"]
    _says(reasons["c"], "Step c waits for b (running).")
    assert (reasons["d"]["open"], len(reasons["d"]["waits_for"])) == (8, 5)
    _says(reasons["d"], "w0 (pending)", "and 3 more.")


def test_steps_over_a_limit_say_which(controller: WorkflowController, why: Why) -> None:
    plan = {"max_parallel": 1, "name": "n", "steps": steps("a", "b")}
    run_id = controller.enqueue_workflow(plan, task_description="x")
    reason = _only(why(run_id), "parallel_limit")
    assert (reason["step"], reason["limit"]) == ("b", 1)
    _says(reason, "at most 1 steps of the workflow are in work at once")
    plan = {"name": "n", "steps": [step("m", map={"over": "input", "max_parallel": 2})]}
    run_id = controller.enqueue_workflow(plan, task_description="x", input=[1, 2, 3])
    reason = _only(why(run_id), "parallel_limit")
    assert (reason["step"], reason["limit"]) == ("m.2", 2)
    _says(_only(why(run_id), "items"), "Step m waits for 3 items: m.0 (pending), m.1 (pending), m.2 (pending).")


def test_a_step_that_a_guard_keeps_from_starting_names_it(
    controller: WorkflowController, worker: WorkerDouble, why: Why, unchecked_database: Database
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    rule = GuardRule("workflow_step", "pending", "running", ("tests.never",), step="a")
    attach_rules(unchecked_database.engine, GuardRules([rule]))
    worker.offer("a")
    explained = why(run_id)
    reason = _only(explained, "guard")
    assert (reason["step"], reason["guard"]) == ("a", "tests.never")
    _says(reason, "Guard 'tests.never' does not let step a start", "sent again at")
    assert _only(explained, "queued")["step"] == "b"


def test_a_timer_that_nobody_looks_at_says_that_no_engine_runs(
    controller: WorkflowController, why: Why, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    rows.set_step(run_id, "b", dispatch_check_at=seconds_after(-30))
    assert all(reason["kind"] != "no_engine" for reason in why(run_id)["reasons"])
    rows.set_step(run_id, "b", dispatch_check_at=seconds_after(-600))
    explained = why(run_id)
    assert explained["reasons"][0]["kind"] == "no_engine"
    _says(explained["reasons"][0], "was due 10 min ago", "celery -A your_app worker")


def test_a_step_that_nobody_sent_waits_for_the_next_sweep(controller: WorkflowController, why: Why, rows: Rows) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    sent = rows.step(run_id, "a").task_id
    rows.set_step(run_id, "a", attempt=0, task_id=None, dispatch_check_at=None)
    _says(_only(why(run_id), "ready"), "the engine does it at its next sweep")
    rows.set_step(run_id, "a", attempt=1, task_id=sent, dispatch_check_at=seconds_after(5))


# large runs


def test_a_large_run_is_told_in_a_few_reasons_and_counts(
    controller: WorkflowController, worker: WorkerDouble, why: Why, unchecked_database: Database
) -> None:
    counts = []
    for size in (30, 600):
        roots = [f"r{n}" for n in range(size)]
        plan = [*steps(*roots, retry={"max_attempts": 2}), *(step(f"d{n}", f"r{n}") for n in range(size))]
        run_id = controller.enqueue_workflow(plan, task_description="x")
        for n in range(7):
            worker.claim(f"r{n}")
        worker.run_failing("r9")
        with counted(unchecked_database.engine) as sent:
            explained = why(run_id)
        counts.append(len(sent))
        worker.queue.clear()
    assert counts[0] == counts[1] <= 10
    assert len(explained["reasons"]) <= 20
    left = {reason["of"]: reason["count"] for reason in explained["reasons"] if reason["kind"] == "more"}
    assert left == {"held": 2, "queued": 600 - 8 - 5, "dependencies": 595}
    assert explained["summary"] == (
        "The workflow is executing: 7 steps in the hands of a worker, 1 step waiting to be tried again, "
        "592 steps waiting for a worker, 600 steps waiting for other steps."
    )


def test_explaining_writes_nothing(controller: WorkflowController, why: Why, rows: Rows) -> None:
    run_id = controller.enqueue_workflow(steps("a"), task_description="x")
    before = (rows.count(), rows.run(run_id), rows.step(run_id, "a"))
    why(run_id)
    assert (rows.count(), rows.run(run_id), rows.step(run_id, "a")) == before
