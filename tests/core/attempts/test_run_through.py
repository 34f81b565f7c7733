"""Run-through in the database: one transaction completes a step and claims the next, and both are then as any others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from interlock.core import Database
from interlock.core.attempts.attempts import AttemptRef, Report
from interlock.core.attempts.fast_path_sql import TURN
from interlock.core.attempts.leases import renew_leases
from interlock.core.attempts.outcomes import Failure
from interlock.core.attempts.run_through import RunThroughOffer
from interlock.core.events import Interrupt
from interlock.core.plan.run_through import NEXT_KINDS, kind_of
from tests.core.rows import Rows, counted, forget_everything, step
from tests.core.slow_path import slow_path
from tests.fault_plans import FaultInjected, FaultRule, injected
from tests.servers import ADVISORY_LOCK_WAITERS, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from interlock.core import WorkflowController
    from interlock.core.settings import Settings
    from interlock.core.sweeper.sweeper import Sweeper
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")
CHAIN = [step("a"), step("b", "a"), step("c", "b"), step("d", "c")]
KINDS = frozenset(kind_of(f"tasks.{key}", queue) for key in "abcd" for queue in (None, "q"))
OFFER = RunThroughOffer("a-message", "the-token", KINDS)
THROUGH = {"run_through": True}


def _enqueue(controller: WorkflowController, *plan: dict[str, Any], **document: Any) -> str:
    return controller.enqueue_workflow({"steps": list(plan), **document}, task_description="x")


def test_a_completion_claims_the_step_that_it_makes_ready(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    run_id = _enqueue(controller, *CHAIN, **THROUGH)
    worker.claim("a")
    assert worker.run_through("a", OFFER, 1) == "b"
    assert worker.queue == []
    taken = rows.step(run_id, "b")
    assert (taken.status, taken.claim_token, taken.claimed_by, taken.carrier_id) == (
        *("running", "the-token", "worker@1", "a-message"),
    )
    assert taken.lease_until is not None
    assert taken.dispatch_check_at is None
    last = rows.history(run_id)[-1]
    assert (last.step_key, last.transition_reason, last.transitioned_by) == ("b", "claimed", "worker@1")
    assert last.meta == {"carrier": "a-message"}
    assert [(change.step_key, change.to_state) for change in worker.changes[-2:]] == [
        ("a", "completed"),
        ("b", "running"),
    ]
    worker.complete("b", 2)
    assert rows.step(run_id, "b").carrier_id is None
    assert worker.queued == ["c"]


@pytest.mark.parametrize("core_url", ["postgresql"], indirect=True)
def test_it_is_one_statement_on_postgresql(
    database: Database, controller: WorkflowController, worker: WorkerDouble
) -> None:
    _enqueue(controller, *CHAIN, **THROUGH)
    worker.claim("a")
    with counted(database.engine) as statements:
        assert [worker.run_through(key, OFFER) for key in "abc"] == ["b", "c", "d"]
    assert statements == ["complete and claim"] * 3


def test_it_writes_what_a_completion_and_a_claim_would_have_written(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, database: Database
) -> None:
    """But for the carrier, in the row and in the history."""
    written = []
    for at_once in (True, False):
        run_id = _enqueue(controller, *CHAIN, **THROUGH)
        worker.claim("a")
        if at_once:
            worker.run_through("a", OFFER, 1)
        else:
            worker.complete("a", 1)
            worker.claim("b")
        values = [dict(rows.step(run_id, key)._mapping) for key in "abcd"]
        history = [(row.seq, row.step_key, row.attempt, row.from_state, row.to_state) for row in rows.history(run_id)]
        run = rows.run(run_id)
        shown = [{name: _shown(name, value) for name, value in one.items()} for one in values]
        written.append((run.seq, run.open_steps, history, shown))
        forget_everything(database)
        worker.held.clear()
    assert written[0] == written[1]


def _shown(name: str, value: Any) -> Any:
    if name == "carrier_id":
        return None
    varies = name.endswith(("_at", "_until", "token", "id"))
    return value is not None if varies else value


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_s": 5},
        {"approval": {}},
        {"when": "`true`"},
        {"map": "`[1]`"},
        {"trigger": "all_settled"},
        {"options": {"routing_key": "elsewhere"}},
        {"queue": "elsewhere"},
        {"task": "tasks.elsewhere"},
        {"run_through": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_step_that_is_more_than_plain_is_not_taken_along(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, options: dict[str, Any]
) -> None:
    run_id = _enqueue(controller, step("a"), {**step("b", "a"), **options}, step("c", "b"), **THROUGH)
    worker.claim("a")
    assert worker.run_through("a", OFFER) is None
    assert rows.step(run_id, "b").carrier_id is None
    assert rows.step(run_id, "b").claim_token is None


def test_a_step_alone_can_ask_for_it(controller: WorkflowController, worker: WorkerDouble) -> None:
    _enqueue(controller, step("a"), step("b", "a", run_through=True, queue="q"), step("c", "b"))
    worker.claim("a")
    assert worker.run_through("a", OFFER) == "b"
    assert worker.run_through("b", OFFER) is None
    assert worker.queued == ["c"]


def test_of_two_steps_that_become_ready_none_is_taken_along(
    controller: WorkflowController, worker: WorkerDouble
) -> None:
    _enqueue(controller, step("a"), step("b", "a"), step("c", "a"), step("d", "b c"), **THROUGH)
    worker.claim("a")
    assert worker.run_through("a", OFFER) is None
    assert worker.queued == ["b", "c"]
    worker.claim("b")
    worker.claim("c")
    assert worker.run_through("b", OFFER) is None, "d waits for c"
    assert worker.run_through("c", OFFER) == "d"


def test_a_run_with_a_limit_on_parallel_work_is_not_run_through(
    controller: WorkflowController, worker: WorkerDouble
) -> None:
    _enqueue(controller, *CHAIN, max_parallel=2, **THROUGH)
    worker.claim("a")
    assert worker.run_through("a", OFFER) is None
    assert worker.queued == ["b"]


def test_while_the_run_is_paused_nothing_is_taken_along(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    run_id = _enqueue(controller, *CHAIN, **THROUGH)
    worker.claim("a")
    controller.pause_workflow(run_id, mode="drain")
    assert worker.run_through("a", OFFER, 1) is None
    controller.resume_workflow(run_id)
    assert worker.queued == ["b"]
    assert rows.step(run_id, "a").result == 1


def test_an_attempt_that_was_interrupted_gives_its_process_back(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    """Paused and resumed at once, it still may complete; but MAIN has been told to stop the process it runs in."""
    run_id = _enqueue(controller, *CHAIN, **THROUGH)
    worker.claim("a")
    controller.pause_workflow(run_id)
    controller.resume_workflow(run_id)
    assert worker.run_through("a", OFFER, 1) is None
    assert rows.states(run_id)["a"] == "completed"
    assert worker.queued == ["b"]


@pytest.mark.parametrize("verb", ["pause", "cancel"])
def test_the_interrupt_of_a_carried_step_names_its_carrier(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, verb: str
) -> None:
    run_id = _enqueue(controller, *CHAIN, **THROUGH)
    worker.claim("a")
    worker.run_through("a", OFFER)
    (controller.pause_workflow if verb == "pause" else controller.cancel_workflow)(run_id)
    task_id = rows.step(run_id, "b").task_id
    assert [(one.task_id, one.message_id) for one in worker.interrupts] == [(task_id, "a-message")]


def test_a_heartbeat_of_the_carrier_renews_what_it_carries(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, database: Database, settings: Settings
) -> None:
    run_id = _enqueue(controller, *CHAIN, **THROUGH)
    worker.claim("a")
    worker.run_through("a", OFFER)
    task_id = rows.step(run_id, "b").task_id
    rows.make_due(run_id, "b", "lease_until")
    before = rows.step(run_id, "b").lease_until
    interrupts = renew_leases(database, settings, ["a-message"])
    assert rows.step(run_id, "b").lease_until > before
    assert task_id not in [each.task_id for each in interrupts]
    controller.pause_workflow(run_id)
    rows.make_due(run_id, "b", "drain_until")
    before = rows.step(run_id, "b").drain_until
    assert Interrupt(task_id, "a-message", "soft") in renew_leases(database, settings, ["a-message"])
    assert rows.step(run_id, "b").drain_until > before


def test_a_carried_attempt_that_was_replaced_is_to_stop(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
    database: Database,
    settings: Settings,
    sweeper: Sweeper,
) -> None:
    """Its lease ended while its worker stood still; when the worker wakes up it hears of it, by the carrier's id."""
    run_id = _enqueue(controller, step("a"), step("b", "a", retry={"initial_delay_s": 0.0}), step("c", "b"), **THROUGH)
    worker.claim("a")
    worker.run_through("a", OFFER)
    task_id = rows.step(run_id, "b").task_id
    rows.make_due(run_id, "b", "lease_until")
    sweeper.sweep()
    sweeper.sweep()
    assert rows.step(run_id, "b").attempt == 2
    assert Interrupt(task_id, "a-message", "cancel") in renew_leases(database, settings, ["a-message"])
    assert worker.complete("b", "late") is Report.STALE
    worker.run("b", "in time")
    assert rows.step(run_id, "b").result == "in time"


def test_when_the_carrier_ends_the_carried_step_is_lost_and_not_the_first_one(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    run_id = _enqueue(controller, *CHAIN, **THROUGH)
    worker.claim("a")
    step_id, task_id = rows.step(run_id, "a").id, rows.step(run_id, "a").task_id
    worker.run_through("a", RunThroughOffer(task_id, "token", KINDS))
    ref = AttemptRef(run_id, step_id, task_id)
    worker.attempts.process_ended(ref, Failure("worker_lost", "SIGKILL"))
    assert rows.states(run_id) == {"a": "completed", "b": "failed", "c": "pending", "d": "pending"}
    assert rows.step(run_id, "b").losses == 1
    worker.attempts.process_ended(ref, Failure("worker_lost", "SIGKILL"))
    assert rows.step(run_id, "b").losses == 1, "it was heard before"


def test_when_a_process_ends_at_its_messages_own_step_that_step_is_lost(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    run_id = _enqueue(controller, *CHAIN, **THROUGH)
    ref = worker.claim("a")
    worker.attempts.process_ended(AttemptRef(run_id, ref.step_id, ref.task_id), Failure("worker_lost", "x"))
    assert (rows.states(run_id)["a"], rows.step(run_id, "a").losses) == ("failed", 1)


def test_an_offer_whose_answer_was_lost_gets_the_same_answer_again(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, tmp_path: Path
) -> None:
    run_id = _enqueue(controller, *CHAIN, **THROUGH)
    ref = worker.claim("a")
    with (
        injected(tmp_path, FaultRule(place="complete.committed", action="lose_answer")),
        pytest.raises(OperationalError),
    ):
        worker.attempts.complete_and_claim_next(ref, 1, OFFER)
    report, taken = worker.attempts.complete_and_claim_next(ref, 1, OFFER)
    assert report is Report.REPEATED
    assert taken is not None
    assert (taken.key, taken.task_id) == ("b", rows.step(run_id, "b").task_id)
    assert len(rows.history(run_id)) == rows.run(run_id).seq


@pytest.mark.parametrize("core_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_what_a_sibling_has_made_ready_during_the_wait_for_the_run_is_sent_and_not_lost(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, database: Database, order: str
) -> None:
    """The statement saw one step that its completion would make ready; when the run was its own, there were two."""
    waits_for = {"a": "x", "b": "x y"}
    run_id = _enqueue(controller, step("x"), step("y"), *(step(key, waits_for[key]) for key in order), **THROUGH)
    x, y = worker.claim("x"), worker.claim("y")
    worker.queue.clear()
    with ThreadPoolExecutor(1) as executor, database.engine.connect() as other:
        other.execute(text(f"SELECT FROM {TURN.replace('$1::text', ':run_id')}"), {"run_id": run_id})
        end = executor.submit(worker.attempts.complete_and_claim_next, x, 1, OFFER)
        waiting = text(ADVISORY_LOCK_WAITERS)
        wait_until(lambda: other.scalar(waiting), 10, "it has looked at the steps and waits for its turn")
        with slow_path():  # which has no turn to wait for; `x` is past it
            worker.attempts.complete(y, 1)
        other.rollback()
    report, taken = end.result(10)
    assert report is Report.RECORDED
    assert taken is not None
    assert (taken.key, worker.queued) == ("a", ["b"])
    assert rows.states(run_id) == {"x": "completed", "y": "completed", "a": "running", "b": "pending"}


@pytest.mark.parametrize("core_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("offer", [None, OFFER], ids=["no offer", "an offer"])
def test_a_step_whose_other_predecessor_failed_during_the_wait_for_the_run_does_not_start(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, database: Database, offer: RunThroughOffer | None
) -> None:
    """The statement saw no failure; but who records one skips what it decides in the same transaction, so it is pending no more."""
    run_id = _enqueue(controller, step("x"), step("y", on_failure="continue"), step("a", "x y"), step("z"), **THROUGH)
    x, y = worker.claim("x"), worker.claim("y")
    with ThreadPoolExecutor(1) as executor, database.engine.connect() as other:
        other.execute(text(f"SELECT FROM {TURN.replace('$1::text', ':run_id')}"), {"run_id": run_id})
        end = executor.submit(worker.attempts.complete_and_claim_next, x, 1, offer)
        waiting = text(ADVISORY_LOCK_WAITERS)
        wait_until(lambda: other.scalar(waiting), 10, "it has looked at the steps and waits for its turn")
        worker.attempts.fail(y, Failure("error", "no"))
        other.rollback()
    assert end.result(10) == (Report.RECORDED, None)
    assert rows.states(run_id) == {"x": "completed", "y": "failed", "a": "skipped", "z": "pending"}


@pytest.mark.parametrize("core_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("place", ["runthrough.commit", "runthrough.committed"])
def test_the_places_around_the_transaction_can_be_broken(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, tmp_path: Path, place: str
) -> None:
    run_id = _enqueue(controller, *CHAIN, **THROUGH)
    ref = worker.claim("a")
    with injected(tmp_path, FaultRule(place=place, action="raise")), pytest.raises(FaultInjected):
        worker.attempts.complete_and_claim_next(ref, 1, OFFER)
    assert rows.states(run_id)["b"] == ("pending" if place == "runthrough.commit" else "running")


@pytest.mark.parametrize("core_url", ["postgresql"], indirect=True)
def test_where_somebody_is_asked_about_starts_he_is_asked_about_this_one(
    controller: WorkflowController, worker: WorkerDouble, unchecked_database: Database
) -> None:
    asked: list[tuple[str | None, str]] = []
    unchecked_database.emitter.on("state_changing", lambda data: asked.append((data["step"], data["to_state"])))
    _enqueue(controller, *CHAIN, **THROUGH)
    worker.claim("a")
    asked.clear()
    assert worker.run_through("a", OFFER) == "b"
    assert asked == [("a", "completed"), ("b", "running")]


@pytest.mark.parametrize("core_url", ["sqlite"], indirect=True)
def test_the_fast_path_is_of_postgresql_alone(controller: WorkflowController, worker: WorkerDouble) -> None:
    _enqueue(controller, *CHAIN, **THROUGH)
    worker.claim("a")
    with patch.object(Database, "run_prepared", side_effect=AssertionError):
        assert worker.run_through("a", OFFER) == "b"


def test_a_run_that_runs_through_is_run_again_and_its_items_name_nothing(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    run_id = _enqueue(controller, step("a", map="`[1]`"), step("b", "a"), **THROUGH)
    assert rows.step(run_id, "a").spec[NEXT_KINDS] == [kind_of("tasks.b", None)]
    assert NEXT_KINDS not in rows.step(run_id, "a.0").spec
    controller.cancel_workflow(run_id)
    again = controller.rerun_workflow(run_id)
    assert rows.step(again, "a").spec == rows.step(run_id, "a").spec
    assert worker.queued
