"""The fast path writes what the slow path writes, and is taken for what is common."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from interlock.core import TransitionVetoed, WorkflowController
from interlock.core.attempts.attempts import AttemptRef, Report
from interlock.core.attempts.run_through import RunThroughOffer
from interlock.core.database.tables import WorkflowStep
from interlock.core.plan.run_through import kind_of
from interlock.core.settings import Settings
from tests.core.checker import check
from tests.core.rows import Rows, counted, forget_everything, step
from tests.core.slow_path import slow_path
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from interlock.core import Database

pytestmark = pytest.mark.parametrize("core_url", ["postgresql"], indirect=True)

CHAIN = [step("a"), step("b", "a"), step("c", "b")]
DIAMOND = [step("a"), step("b", "a"), step("c", "a"), step("d", "b c")]
# Columns that differ between any two runs: ids, tokens, times.
_VARYING = {"id", "run_id", "task_id", "claim_token", "drain_token", "drain_task_id", "parent_id"}
_TIMES = {column.name for column in WorkflowStep.__table__.columns if column.name.endswith(("_at", "_until"))}


def _without_ids(row: Any) -> dict[str, Any]:
    known = dict(row._mapping)
    shown = {name: value for name, value in known.items() if name not in _VARYING | _TIMES}
    shown |= {name: known[name] is not None for name in _TIMES | _VARYING if name in known}
    return shown


def _story(database: Database, rows: Rows, run_id: str, worker: WorkerDouble) -> dict[str, Any]:
    """Everything that was written and told of a run."""
    history = [
        (
            row.seq,
            row.step_key,
            row.attempt,
            row.from_state,
            row.to_state,
            row.transition_reason,
            row.transitioned_by,
            sorted(row.meta or {}),
        )
        for row in rows.history(run_id)
    ]
    told = [
        (
            change.seq,
            change.step_key,
            change.attempt,
            change.from_state,
            change.to_state,
            change.reason,
            change.transitioned_by,
            change.session_id,
            sorted(change.meta or {}),
            change.history_id is not None,
        )
        for change in worker.changes
    ]
    run = rows.run(run_id)
    keys = list(rows.states(run_id))
    assert database.dialect == "postgresql"
    return {
        "history": history,
        "told": told,
        "run": (run.status, run.seq, run.open_steps, run.waiting_steps, run.error),
        "steps": [_without_ids(rows.step(run_id, key)) for key in keys],
    }


def _play(
    database: Database, plan: list[dict[str, Any]], order: Callable[[list[str]], str], through: Through | None = None
) -> dict[str, Any]:
    """Run a plan to its end, one step after the other; every third step fails once, and every other one offers to run through."""
    worker, rows = WorkerDouble(database, Settings()), Rows(database)
    dispatched: list[list[tuple[str, str, int]]] = []
    with database.session() as session:
        document = {"steps": plan, "run_through": through is not None and through.by_default}
        run_id = WorkflowController(session, settings=Settings()).enqueue_workflow(document, task_description="x")
    ran = 0
    while worker.queue or worker.held:
        key = next(iter(worker.held), None)
        if key is None:
            key = order(worker.queued)
            worker.claim(key)
        ran += 1
        if ran % 3 == 0 and worker.held[key].task_id.endswith(".1"):
            worker.fail(key)
        elif through is not None and ran % 2:
            worker.run_through(
                key, RunThroughOffer(f"carrier-{ran}", f"token-{ran}", through.kinds), {"of": key, "text": "ü"}
            )
        else:
            worker.complete(key, {"of": key, "text": "ü"})
        dispatched.append(sorted((d.key, d.task, d.attempt) for d in worker.queue))
    database.after_commit.clear()
    check(database)
    story = _story(database, rows, run_id, worker)
    forget_everything(database)
    return {**story, "dispatched": dispatched}


@dataclass(frozen=True)
class Through:
    """What a worker offers to run through to, and whether plans ask for it where their steps do not say."""

    by_default: bool
    kinds: frozenset[str]


_THROUGH = st.builds(
    Through,
    by_default=st.booleans(),
    kinds=st.frozensets(
        st.sampled_from([kind_of(f"tasks.s{number}", queue) for number in range(7) for queue in (None, "q")]),
        min_size=7,
    ),
)


@st.composite
def _plans(draw: st.DrawFn) -> list[dict[str, Any]]:
    keys = [f"s{number}" for number in range(draw(st.integers(1, 7)))]
    plan = []
    for number, key in enumerate(keys):
        after = draw(st.lists(st.sampled_from(keys[:number]), unique=True)) if number else []
        options: dict[str, Any] = {"retry": {"max_attempts": 2, "initial_delay_s": 0.0}}
        special = draw(st.sampled_from(["", "", "", "", "when", "trigger", "continue", "timeout"]))
        if special == "when":
            options["when"] = draw(st.sampled_from(["`true`", "`false`"]))
        elif special == "trigger" and after:
            options["trigger"] = draw(st.sampled_from(["all_settled", "any_failed"]))
        elif special == "continue":
            options["on_failure"] = "continue"
        elif special == "timeout":
            options["timeout_s"] = 5
        for name, values in (("run_through", [None, True, False]), ("queue", [None, None, "q", 'of "Müller"\\'])):
            if (value := draw(st.sampled_from(values))) is not None:
                options[name] = value
        plan.append({"key": key, "task": f"tasks.{key}", "after": after, **options})
    return plan


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(plan=_plans(), last=st.booleans(), through=st.none() | _THROUGH)
def test_both_paths_write_and_tell_the_same(
    unchecked_database: Database, plan: list[dict[str, Any]], through: Through | None, *, last: bool
) -> None:
    stories = []
    for path in (nullcontext(), slow_path()):
        with path:
            stories.append(_play(unchecked_database, plan, max if last else min, through))
    assert stories[0] == stories[1]


def test_claim_and_completion_of_a_link_are_one_statement_each(
    database: Database, controller: WorkflowController, worker: WorkerDouble
) -> None:
    controller.enqueue_workflow(CHAIN, task_description="x")
    with counted(database.engine) as statements:
        worker.run("a")
        worker.run("b")
    assert statements == ["claim", "complete"] * 2


def test_the_last_step_ends_its_run_in_one_statement_more(
    database: Database, controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    run_id = controller.enqueue_workflow([step("a")], task_description="x")
    worker.claim("a")
    with counted(database.engine) as statements:
        worker.complete("a")
    assert statements == ["complete", "end"]
    assert rows.run(run_id).status == "completed"
    told = [(change.entity_type, change.step_key, change.to_state, change.seq) for change in worker.changes[-2:]]
    seq = rows.run(run_id).seq
    assert told == [("workflow_step", "a", "completed", seq - 1), ("workflow_run", None, "completed", seq)]


def test_a_run_that_does_not_complete_with_its_last_step_goes_by_the_slow_path(
    database: Database, controller: WorkflowController, worker: WorkerDouble, rows: Rows
) -> None:
    """A failure counts against it that was not there when its step failed: the counter alone would say that all is well."""
    run_id = controller.enqueue_workflow([step("a", on_failure="continue"), step("b")], task_description="x")
    worker.run_failing("a")
    worker.claim("b")
    rows.set_step(run_id, "a", spec={})
    with counted(database.engine) as statements:
        worker.complete("b")
    assert statements[:2] == ["complete", "end"]
    assert len(statements) > 2
    assert rows.run(run_id).status == "failed"


@pytest.fixture
def vetoed(unchecked_database: Database) -> Iterator[list[str]]:
    """A listener that is asked about every move; what it was asked."""
    asked: list[str] = []

    def listener(data: dict[str, Any]) -> None:
        asked.append(data["to_state"])
        if data["transitioned_by"] == "somebody":
            raise TransitionVetoed(data["reason"])

    unchecked_database.emitter.on("state_changing", listener)
    yield asked
    unchecked_database.emitter.off("state_changing", listener)


def test_where_somebody_listens_before_a_move_he_is_asked_about_every_one(
    controller: WorkflowController, worker: WorkerDouble, vetoed: list[str]
) -> None:
    controller.enqueue_workflow(CHAIN, task_description="x")
    vetoed.clear()
    worker.run("a")
    assert vetoed == ["running", "completed"]


@pytest.mark.usefixtures("database")
def test_an_id_that_is_none_is_no_error(worker: WorkerDouble) -> None:
    ref = AttemptRef("no-uuid", "neither", "nothing.1", "token")
    with pytest.raises(Exception, match="no-uuid"):  # the slow path says so
        worker.attempts.claim(ref, "worker@1")


def test_after_the_server_has_closed_the_connection_the_next_call_takes_another(
    database: Database, controller: WorkflowController, worker: WorkerDouble
) -> None:
    controller.enqueue_workflow(DIAMOND, task_description="x")
    worker.run("a")
    pids: list[int] = []
    event.listen(database.engine, "connect", lambda connection, _: pids.append(connection.info.backend_pid))
    with database.reading() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )
    worker.run("b")
    assert worker.attempts.complete(worker.claim("c"), 1) is Report.RECORDED
    assert pids
