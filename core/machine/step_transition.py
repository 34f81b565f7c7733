"""A transition of steps as statements that are built once: which steps, where to, and what else is written with it.

SQLAlchemy takes several times as long to build a statement as to send it. So a transition that happens at every step of every run
is a constant of its module, with `bindparam` for what differs from one use to the next; others are built where they are used
(`UnitOfWork.move_steps`). Either is applied by the unit of work, which alone knows the run and holds its lock (ADR 12).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, or_, update

from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.model.transitions import STEP_TABLE

from .history_rows import appending

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Insert, Update

    from interlock.core.model.states import StepState

__all__ = ["RUN", "StepTransition"]

_steps = table_of_model(WorkflowStep)

RUN = "of_run"
"""The parameter of every transition: the run's id."""


class StepTransition:
    """Moves every step of the run that meets the conditions to one state; the sources are those of the table.

    Attributes:
        target: The state.
        claims: Whether it is a worker's claim, about which attached guards are asked.
        where: Which steps.
    """

    def __init__(self, target: StepState, *conditions: ColumnElement[bool], **values: Any) -> None:
        """Describe the transition.

        Args:
            target: The state to move to.
            *conditions: On columns of `workflow_steps`. Their parameters must not be named as columns are.
            **values: Further columns to write with it, values, expressions or parameters.
        """
        self.target = target
        self.claims = values.get("claim_token") is not None
        sources = STEP_TABLE.sources(target)
        is_source = or_(*(_steps.c.status == source.value for source in sources))
        self.where = and_(_steps.c.run_id == bindparam(RUN), is_source, *conditions)
        self._values = values

    @cached_property
    def update(self) -> Update:
        """Moves the steps."""
        return update(_steps).where(self.where).values(status=self.target.value, **self._values)

    @cached_property
    def append(self) -> Insert:
        """Appends a row of history for each of them; to be sent before `update`."""
        return appending(self.where, self.target)

    @cached_property
    def insert_and_update(self) -> Insert:
        """Does both in one statement, where the dialect writes in CTEs."""
        return self.append.add_cte(self.update.returning(_steps.c.id).cte("moved"))
