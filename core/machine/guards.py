"""Conditions on edges: the built-in three, and those that users register.

A guard is a function of a `GuardContext` that returns whether the move may be made. It is named, registered by `@guard` or by
an entry point of the group `interlock.guards`, and evaluated under the workflow's lock, so what it reads cannot change
before the move is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, func, select
from sqlalchemy.exc import DBAPIError

from interlock.core.database.tables import ApprovalRequest, StateHistory, StepDependency, WorkflowStep
from interlock.core.errors import ConfigurationError, InterlockError
from interlock.core.plan import find_cycle

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Guard", "GuardContext", "find_guard", "guard", "known_guards", "objection"]


@dataclass(frozen=True, slots=True)
class GuardContext:
    """What a guard may look at.

    Attributes:
        connection: The open transaction; read only.
        entity_type: `workflow_run` or `workflow_step`.
        entity: The entity's columns as they are before the move.
        from_state: Where it is.
        to_state: Where it is asked to go.
        actor: Who asks.
        reason: Why.
        meta: What came with the request.
        plan: By each step what it waits for, where the plan is not in the tables yet; else None.
    """

    connection: Connection
    entity_type: str
    entity: Mapping[Any, Any]
    from_state: str
    to_state: str
    actor: str
    reason: str | None
    meta: Mapping[str, Any] | None
    plan: Mapping[str, Sequence[str]] | None = None


Guard = Callable[[GuardContext], bool]

_registered: dict[str, Guard] = {}


def guard(name: str) -> Callable[[Guard], Guard]:
    """Register the decorated function as the guard `name`.

    Raises:
        ConfigurationError: Another function has the name.
    """

    def register(function: Guard) -> Guard:
        if _registered.get(name, function) is not function:
            msg = f"guard {name!r} is already registered"
            raise ConfigurationError(msg)
        _registered[name] = function
        return function

    return register


@cache
def _from_entry_points() -> dict[str, Guard]:
    return {point.name: point.load() for point in entry_points(group="interlock.guards")}


def find_guard(name: str) -> Guard:
    """Return the guard `name`.

    Raises:
        ConfigurationError: Nobody registered it.
    """
    found = _registered.get(name) or _from_entry_points().get(name)
    if found is None:
        msg = f"no guard is called {name!r}; known: {', '.join(known_guards())}"
        raise ConfigurationError(msg)
    return found


def known_guards() -> tuple[str, ...]:
    """The names of all guards: built in, registered so far, and of entry points."""
    return tuple(sorted({*_registered, *_from_entry_points()}))


def objection(name: str, context: GuardContext) -> str | None:
    """Ask the guard `name`.

    Returns:
        None where it holds; else what there is to say beyond its name, which may be nothing. A guard that fails does not
        hold; only the database's own errors and Interlock's pass, because those may call for a new try.
    """
    try:
        return None if find_guard(name)(context) else ""
    except (DBAPIError, InterlockError):
        raise
    except Exception as error:  # noqa: BLE001 - a guard is a stranger's code: whatever it raises, the move is not made
        return f"it failed: {type(error).__name__}: {error}"


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
