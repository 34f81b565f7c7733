"""The three guards that the transition tables name; importing this module registers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exists, func, select

from interlock.core.database.tables import ApprovalRequest, StateHistory, StepDependency, WorkflowStep
from interlock.core.plan import find_cycle

from .guards import guard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .guards import GuardContext

__all__ = ["has_approval", "has_task_description", "has_valid_plan"]


@guard("has_task_description")
def has_task_description(context: GuardContext) -> bool:
    """The run says what it is for."""
    description = context.entity["task_description"]
    return description is not None and bool(description.strip())


@guard("has_valid_plan")
def has_valid_plan(context: GuardContext) -> bool:
    """The run has steps, each waits for steps of the same run, and no cycle keeps one from starting."""
    plan = _stored_plan(context) if context.plan is None else context.plan
    known = all(upstream in plan for waits_for in plan.values() for upstream in waits_for)
    return bool(plan) and known and find_cycle(plan) is None


def _stored_plan(context: GuardContext) -> Mapping[str, Sequence[str]]:
    run_id = context.entity["id"]
    plan: dict[str, tuple[str, ...]] = {
        row.id: () for row in context.connection.execute(select(WorkflowStep.id).where(WorkflowStep.run_id == run_id))
    }
    edges = select(StepDependency.step_id, StepDependency.upstream_id).where(StepDependency.run_id == run_id)
    for step_id, upstream_id in context.connection.execute(edges):
        if step_id not in plan:
            return {}
        plan[step_id] += (upstream_id,)
    return plan


@guard("has_approval")
def has_approval(context: GuardContext) -> bool:
    """A person has decided a request of this run since it began to wait, and the decision has not taken effect yet."""
    run_id = context.entity["id"]
    began = (
        select(func.max(StateHistory.created_at))
        .where(
            StateHistory.entity_type == context.entity_type,
            StateHistory.entity_id == run_id,
            StateHistory.to_state == context.from_state,
        )
        .scalar_subquery()
    )
    decided = exists().where(
        ApprovalRequest.run_id == run_id,
        ApprovalRequest.decision.in_(("approved", "rejected")),
        # Two things may happen in one tick of the clock: the decision that ended an earlier wait, and this wait.
        ApprovalRequest.applied.is_(False),
        func.coalesce(ApprovalRequest.decided_at >= began, True),
    )
    return bool(context.connection.scalar(select(decided)))
