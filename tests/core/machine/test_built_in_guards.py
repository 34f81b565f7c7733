"""The three guards of the tables: what each asks for before it lets a run move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert

from interlock.core import (
    GuardRefused,
    StateMachine,
    WorkflowController,
    WorkflowRun,
)
from interlock.core.database.tables import ApprovalRequest, StepDependency, new_id
from interlock.core.database.types import seconds_after
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from interlock.core import Database
    from tests.core.rows import Rows


@pytest.mark.parametrize("description", [None, "", " \t\n"])
def test_planning_needs_a_task_description(
    controller: WorkflowController,
    machine: StateMachine,
    rows: Rows,
    description: str | None,
) -> None:
    run = controller.create_workflow(description)
    with pytest.raises(GuardRefused) as caught:
        machine.transition_to(run.id, "planning")
    error = caught.value
    assert (error.guard, error.from_state, error.to_state) == ("has_task_description", "draft", "planning")
    assert error.allowed == ("planning", "cancelled")
    assert not machine.can_transition_to(run.id, "planning")
    assert machine.get_allowed_transitions(run.id) == ["cancelled"]
    assert rows.path(run.id) == ["draft"]


def test_planning_is_entered_with_a_task_description(controller: WorkflowController, machine: StateMachine) -> None:
    run = controller.create_workflow("count the words")
    assert machine.get_allowed_transitions(run.id) == ["planning", "cancelled"]
    assert machine.transition_to(run.id, "planning") is True
    assert machine.get_current_state(run.id) == "planning"


def _planning(controller: WorkflowController, machine: StateMachine, plan: Any = None) -> str:
    run = controller.create_workflow("x", plan=plan)
    machine.transition_to(run.id, "planning")
    return run.id


def test_executing_needs_at_least_one_step(controller: WorkflowController, machine: StateMachine) -> None:
    run_id = _planning(controller, machine)
    assert machine.get_allowed_transitions(run_id) == ["failed", "cancelled"]
    with pytest.raises(GuardRefused, match="has_valid_plan"):
        machine.transition_to(run_id, "executing")


def _add_edge(database: Database, run_id: str, upstream_id: str, step_id: str) -> None:
    values = {"run_id": run_id, "upstream_id": upstream_id, "step_id": step_id}
    database.transact(lambda connection, _: connection.execute(insert(StepDependency.__table__), values))


def test_executing_refuses_a_cycle_that_got_into_the_database(
    controller: WorkflowController,
    machine: StateMachine,
    unchecked_database: Database,
    rows: Rows,
) -> None:
    run_id = _planning(controller, machine, [step("a"), step("b", "a")])
    _add_edge(unchecked_database, run_id, rows.step(run_id, "b").id, rows.step(run_id, "a").id)
    with pytest.raises(GuardRefused, match="has_valid_plan"):
        machine.transition_to(run_id, "executing")
    assert not machine.can_transition_to(run_id, "executing")


def test_executing_refuses_a_dependency_on_a_step_of_another_run(
    controller: WorkflowController,
    machine: StateMachine,
    unchecked_database: Database,
    rows: Rows,
) -> None:
    run_id, other = (_planning(controller, machine, steps("a")) for _ in range(2))
    _add_edge(unchecked_database, run_id, rows.step(other, "a").id, rows.step(run_id, "a").id)
    with pytest.raises(GuardRefused, match="has_valid_plan"):
        machine.transition_to(run_id, "executing")
    assert machine.can_transition_to(other, "executing")


def test_executing_is_entered_with_a_valid_plan(controller: WorkflowController, machine: StateMachine) -> None:
    run_id = _planning(controller, machine, [step("a"), step("b", "a")])
    assert machine.transition_to(run_id, "executing") is True


def _waiting(controller: WorkflowController, machine: StateMachine) -> str:
    run_id = _planning(controller, machine, steps("a"))
    machine.transition_to(run_id, "executing")
    machine.transition_to(run_id, "waiting_approval")
    return run_id


def _decide(database: Database, run_id: str, decision: str | None, decided_s: float = 1) -> None:
    """Add an approval request, decided so many seconds after (or before) now."""
    values = {
        "id": new_id(),
        "run_id": run_id,
        "session_id": "default",
        "decision": decision,
        "decided_at": None if decision is None else seconds_after(decided_s),
    }
    database.transact(lambda connection, _: connection.execute(insert(ApprovalRequest.__table__).values(**values)))


@pytest.mark.parametrize(
    ("decided", "accepted"),
    [
        (("approved", 1), True),
        (("rejected", 1), True),
        (("approved", -60), False),  # an earlier wait's
        (("closed", 1), False),
        ((None, 0), False),
    ],
)
def test_a_wait_ends_only_by_a_decision_made_since_it_began(
    controller: WorkflowController,
    machine: StateMachine,
    unchecked_database: Database,
    decided: tuple[str | None, float],
    accepted: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    run_id, other = (_waiting(controller, machine) for _ in range(2))
    _decide(unchecked_database, run_id, *decided)
    assert machine.can_transition_to(run_id, "executing") is accepted
    assert not machine.can_transition_to(other, "executing")
    if accepted:
        assert machine.transition_to(run_id, "executing") is True
    else:
        with pytest.raises(GuardRefused, match="has_approval"):
            machine.transition_to(run_id, "executing")


def test_a_wait_without_history_ends_by_any_decision(unchecked_database: Database, machine: StateMachine) -> None:
    run_id = new_id()
    with unchecked_database.session() as old:
        old.add(WorkflowRun(id=run_id, status="waiting_approval"))
    assert not machine.can_transition_to(run_id, "executing")
    _decide(unchecked_database, run_id, "approved", -3600)
    assert machine.transition_to(run_id, "executing")
