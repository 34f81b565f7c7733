"""Run-through: a process that has completed a step goes on with the next one in the same transaction, without a message.

Its worker's MAIN process knows it by the message on which it came, the *carrier*; so the row of a *carried* step names the carrier
until the step has completed, and whoever means the process that runs a carried attempt has to name both. Only first attempts are
carried: whatever comes after one (a retry, a resume) has a message of its own (ADR 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import or_, select

from interlock.core.database.tables import WorkflowRun, WorkflowStep, table_of_model
from interlock.core.model.states import WorkflowState
from interlock.core.orchestration.new_attempts import DISPATCH_COLUMNS, dispatch_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

    from interlock.core.events import Dispatch
    from interlock.core.machine.unit_of_work import UnitOfWork
    from interlock.core.plan import PlanSpec

__all__ = [
    "AHEAD",
    "KIND_SEPARATOR",
    "NOT_CARRIED",
    "Onward",
    "array_of",
    "carried_attempt",
    "carrier_of_drain",
    "carriers_of",
    "kind_of",
    "kinds_ahead",
    "live_carried",
    "taken_before",
    "to_go_on_with",
]

KIND_SEPARATOR: Final = "\x1f"

NOT_CARRIED: Final = ("approval", "each", "map", "options", "timeout_s", "trigger", "when")
"""What a step's plan may hold that needs a person, a decision, a limit that MAIN keeps, or a message that is like no other."""

AHEAD: Final = "onward"
"""Where a stored step says, besides what its plan says of it, which kinds of steps behind it may be gone on to. It travels in the
message, so that nobody offers what no plan asks for, and an offer names few kinds."""

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)


@dataclass(frozen=True, slots=True)
class Onward:
    """A process's offer to go on with the step that its completion makes ready.

    Attributes:
        carrier_id: Celery id of the message on which the process came.
        token: For the claim of that step.
        kinds: What lies ahead that it could run, and would get from the queue that it came from, each as `kind_of` says it.
    """

    carrier_id: str
    token: str
    kinds: frozenset[str]

    def takes(self, dispatch: Dispatch, *, by_default: bool) -> bool:
        """Whether an attempt that is due may be taken along.

        Args:
            dispatch: The attempt.
            by_default: What its plan says of steps that do not say so themselves.
        """
        spec = dispatch.spec
        asked_for = spec.get("run_through", by_default) and not any(name in spec for name in NOT_CARRIED)
        return bool(asked_for) and dispatch.attempt == 1 and kind_of(dispatch.task, spec.get("queue")) in self.kinds


@lru_cache(maxsize=100)
def array_of(kinds: frozenset[str]) -> bytes:
    """Texts as PostgreSQL reads an array; made once, since a process offers the same at every step."""
    quoted = (kind.replace("\\", "\\\\").replace('"', '\\"') for kind in sorted(kinds))
    return ("{" + ",".join(f'"{kind}"' for kind in quoted) + "}").encode()


def kind_of(task: str, queue: str | None) -> str:
    """A step's task and the queue that its plan names, as one text."""
    return f"{queue or ''}{KIND_SEPARATOR}{task}"


def kinds_ahead(plan: PlanSpec, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """For each step behind which there is one that may be gone on to: the kinds of these.

    Args:
        plan: The plan.
        specs: Its steps by key, as they are stored.
    """
    ahead: dict[str, set[str]] = {}
    for step in plan.steps:
        asked_for = plan.run_through if step.run_through is None else step.run_through
        if asked_for and step.task is not None and not any(name in specs[step.key] for name in NOT_CARRIED):
            for upstream in step.after:
                ahead.setdefault(upstream, set()).add(kind_of(step.task, step.queue))
    return {key: sorted(kinds) for key, kinds in ahead.items()}


def carried_attempt(step_id: str) -> str:
    """The Celery id that a step's attempt has where it is carried: the first one's."""
    return f"{step_id}.1"


def carrier_of_drain(row: Row[*tuple[Any, ...]]) -> str | None:
    """The message on which the process came that still runs a step's interrupted attempt; None where it is that attempt's own.

    Args:
        row: The step's `id`, `drain_task_id` and `carrier_id`.
    """
    carrier: str | None = row.carrier_id
    return carrier if row.drain_task_id == carried_attempt(row.id) else None


def to_go_on_with(unit: UnitOfWork, onward: Onward | None) -> Dispatch | None:
    """The one attempt that the unit of work has made due, where the offer is for such a one and the run lets it be taken."""
    due = unit.effects.dispatches
    run = unit.run
    if onward is None or len(due) != 1 or run.max_parallel is not None or run.status is not WorkflowState.EXECUTING:
        return None
    plan = unit.connection.scalar(select(_runs.c.spec).where(_runs.c.id == run.id)) or {}
    return due[0] if onward.takes(due[0], by_default=plan.get("run_through", False)) else None


def taken_before(unit: UnitOfWork, onward: Onward) -> Dispatch | None:
    """The step that was claimed by an offer whose answer was lost."""
    row = unit.connection.execute(
        select(*DISPATCH_COLUMNS).where(
            _steps.c.carrier_id == onward.carrier_id,
            _steps.c.claim_token == onward.token,
        ),
    ).one_or_none()
    return None if row is None else dispatch_of(row, unit.run.id, unit.run.session_id)


def live_carried(connection: Connection, run_id: str, carrier_id: str) -> Sequence[str]:
    """Ids of the steps whose first attempt came on a message, and is held or draining."""
    rows = connection.execute(
        select(_steps.c.id, _steps.c.task_id, _steps.c.drain_task_id).where(
            _steps.c.run_id == run_id,
            _steps.c.carrier_id == carrier_id,
            or_(_steps.c.claim_token.is_not(None), _steps.c.drain_token.is_not(None)),
        ),
    ).all()
    return [row.id for row in rows if carried_attempt(row.id) in (row.task_id, row.drain_task_id)]


def carriers_of(connection: Connection, message_ids: Sequence[str]) -> Mapping[str, str]:
    """The attempts that messages have carried a process to and that have no result yet: Celery id → that of the message."""
    carried = connection.execute(
        select(_steps.c.id, _steps.c.carrier_id).where(
            # The first condition is what the partial index is about.
            _steps.c.carrier_id.is_not(None),
            _steps.c.carrier_id.in_(message_ids),
        ),
    ).all()
    return {carried_attempt(row.id): row.carrier_id for row in carried}
