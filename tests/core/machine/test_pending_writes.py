"""What a unit of work holds back and writes together is what it would have written one by one.

Where somebody listens before each move, everything is written before he is asked; so a listener who has no objection makes the same
call take the slow path, and every row, event and dispatch of the two can be compared.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import pytest
from sqlalchemy import select

from interlock.core import WorkflowController
from interlock.core.database import bulk_insert as bulk
from interlock.core.database.tables import StateHistory, StepDependency, WorkflowRun, WorkflowStep
from interlock.core.errors import GuardRefused
from interlock.core.machine.guard_rules import NO_RULES, GuardRule, GuardRules, attach_rules
from interlock.core.machine.guards import GuardContext, guard
from tests.core.checker import check
from tests.core.rows import Rows, forget_everything, step, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core import Database
    from interlock.core.events import Effects

_RUNS, _STEPS, _EDGES, _HISTORY = (
    model.__table__ for model in (WorkflowRun, WorkflowStep, StepDependency, StateHistory)
)
_TIMES: Final = ("_at", "_until")

PLANS: Final[dict[str, list[dict[str, Any]]]] = {
    "one step": steps("a"),
    "a chain": [step("a"), step("b", "a"), step("c", "b", retry={"max_attempts": 3})],
    "a diamond": [step("a"), step("b", "a"), step("c", "a"), step("d", "b c", trigger="all_settled")],
    "steps side by side": steps(*"abcde", args=[1, "ü", None, {"$expr": "input.x"}], timeout_s=5),
    "out of order": [step("z", "a"), step("a")],
    "a condition that holds": [step("a", when="`true`"), step("b"), step("c", "a")],
    "a condition that does not": [step("a"), step("b", when="`false`"), step("c", "b")],
    "a condition that cannot be evaluated": [step("a"), step("b", when="abs(input.x)"), step("c")],
    "a gate first": [{"key": "gate", "approval": {"deadline_s": 60}}, step("b", "gate"), step("c")],
    "nothing but a gate": [{"key": "gate", "approval": True}],
    "a map first": [step("a"), step("m", map="input.list"), step("c", "m")],
    "a map over nothing": [step("m", map="input.none"), step("c", "m")],
}
INPUT: Final = {"x": "text", "list": [1, 2], "none": []}
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "limited": {"max_parallel": 2, "deadline_s": 600.0, "name": "named", "on_external_revoke": "pause"},
}


def _shown(value: Any, names: dict[str, str]) -> Any:
    """A value without what differs between any two runs."""
    if isinstance(value, str):
        for id_, name in names.items():
            value = value.replace(id_, name)
    return value


def _row(row: Any, names: dict[str, str]) -> dict[str, Any]:
    return {
        name: value is not None if name.endswith(_TIMES) else _shown(value, names)
        for name, value in row._mapping.items()
    }


def _story(database: Database, told: list[Effects], run_id: str) -> dict[str, Any]:
    """Everything that is stored and told of a run, its ids by names."""
    with database.reading() as connection:
        run = connection.execute(select(_RUNS).where(_RUNS.c.id == run_id)).one()
        planned = connection.execute(
            select(_STEPS).where(_STEPS.c.run_id == run_id).order_by(_STEPS.c.position, _STEPS.c.key)
        ).all()
        names = {run_id: "RUN", str(run.forked_from): "OLD", **{row.id: row.key for row in planned}}
        edges = connection.execute(select(_EDGES).where(_EDGES.c.run_id == run_id)).all()
        history = connection.execute(
            select(_HISTORY).where(_HISTORY.c.workflow_id == run_id).order_by(_HISTORY.c.seq)
        ).all()
    ids = [row.id for row in history]
    times = [row.created_at for row in history]
    assert ids == sorted(ids), "the order of the ids is the order of seq"
    assert times == sorted(times)
    assert run.created_at <= times[0]
    changes = [change for effects in told for change in effects.changes if change.workflow_id == run_id]
    assert [change.history_id for change in changes] == ids
    assert [change.created_at for change in changes] == times
    return {
        "run": _row(run, names),
        "steps": [_row(row, names) for row in planned],
        "edges": sorted((names[edge.upstream_id], names[edge.step_id]) for edge in edges),
        "history": [{**_row(row, names), "id": None} for row in history],
        "changes": [
            {
                name: _shown(value, names)
                for name, value in asdict(change).items()
                if name not in ("history_id", "created_at")
            }
            for change in changes
        ],
        "dispatches": [
            {name: _shown(value, names) for name, value in asdict(dispatch).items()}
            for effects in told
            for dispatch in effects.dispatches
            if dispatch.run_id == run_id
        ],
    }


def _both_ways(database: Database, act: Callable[[WorkflowController], str]) -> list[dict[str, Any]]:
    """What comes of a call that is written together, and of the same written one by one."""
    stories = []
    for listener in (None, lambda _: None):
        told: list[Effects] = []
        database.after_commit.append(told.append)
        if listener is not None:
            database.emitter.on("state_changing", listener)
        with database.session() as session:
            run_id = act(WorkflowController(session))
        if listener is not None:
            database.emitter.off("state_changing", listener)
        database.after_commit.remove(told.append)
        stories.append(_story(database, told, run_id))
        check(database)
        forget_everything(database)
    return stories


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("plan", PLANS)
def test_an_enqueued_run_is_the_same_either_way(unchecked_database: Database, plan: str, options: str) -> None:
    document = {"task_description": "x", "steps": PLANS[plan], **OPTIONS[options]}
    together, singly = _both_ways(
        unchecked_database, lambda c: c.enqueue_workflow(document, input=INPUT, meta={"m": 1})
    )
    assert together == singly


@pytest.mark.parametrize("how", ["by key", "later", "created", "planned", "cancelled", "again"])
def test_a_run_that_is_made_otherwise_is_the_same_either_way(unchecked_database: Database, how: str) -> None:
    plan = PLANS["a diamond"]
    together, singly = _both_ways(unchecked_database, lambda controller: _make(controller, plan, how))
    assert together == singly


def _make(controller: WorkflowController, plan: list[dict[str, Any]], how: str) -> str:
    if how == "by key":
        return controller.enqueue_workflow(plan, task_description="x", idempotency_key="key")
    if how == "later":
        return controller.enqueue_workflow(plan, task_description="x", start_at=datetime(2100, 1, 1, tzinfo=UTC))
    if how == "created":
        return controller.create_workflow("x", plan=plan, meta={"m": None}).id
    run_id = controller.create_unplanned("x", reason="by hand")
    controller.set_plan(run_id, steps("old"))
    controller.set_plan(run_id, plan)
    if how == "planned":
        return run_id
    controller.start_workflow(run_id)
    controller.pause_workflow(run_id)
    controller.cancel_workflow(run_id)
    return run_id if how == "cancelled" else controller.rerun_workflow(run_id)


def test_rows_beyond_what_one_statement_takes_are_the_same(unchecked_database: Database) -> None:
    with patch.object(bulk, "_ROWS", 2):
        together, singly = _both_ways(
            unchecked_database, lambda c: c.enqueue_workflow(PLANS["a diamond"], task_description="x")
        )
    assert together == singly


seen: list[tuple[str, int]] = []


@guard("tests.core.looks_at_the_tables")
def _looks_at_the_tables(context: GuardContext) -> bool:
    run_id = context.entity["id"]
    status = context.connection.scalar(select(_RUNS.c.status).where(_RUNS.c.id == run_id))
    seen.append(
        (str(status), len(context.connection.execute(select(_STEPS.c.id).where(_STEPS.c.run_id == run_id)).all()))
    )
    return True


def test_an_attached_guard_finds_in_the_tables_what_was_decided_before(
    database: Database, controller: WorkflowController
) -> None:
    seen.clear()
    edges = (("draft", "planning"), ("planning", "executing"))
    rules = [GuardRule("workflow_run", *edge, ("tests.core.looks_at_the_tables",), place="here") for edge in edges]
    attach_rules(database.engine, GuardRules(rules))
    controller.enqueue_workflow(PLANS["a chain"], task_description="x")
    assert seen == [("draft", 3), ("planning", 3)]
    attach_rules(database.engine, NO_RULES)


def test_a_run_whose_start_is_refused_leaves_nothing(
    database: Database, controller: WorkflowController, rows: Rows
) -> None:
    with pytest.raises(GuardRefused, match="has_task_description"):
        controller.enqueue_workflow(PLANS["a chain"], task_description=" ")
    assert rows.count() == (0, 0, 0)
    with database.session() as session, session.begin():
        with pytest.raises(GuardRefused):
            WorkflowController(session).enqueue_workflow(PLANS["a chain"])
        run_id = WorkflowController(session).enqueue_workflow(PLANS["one step"], task_description="x")
    assert rows.path(run_id) == ["draft", "planning", "executing"]
