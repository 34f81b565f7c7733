"""A move of steps as statements that are built once: which steps, where to, and what else is written with it.

SQLAlchemy takes several times as long to build a statement as to send it. So a move that is made at every step of every run is a
constant of its module, and what differs from one use to the next is a parameter of it (`bindparam`). Others are built where they
are made: `UnitOfWork.move_steps`. Either is carried out by the unit of work, which alone knows the run and holds its lock.
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
"""The parameter that every move has: the run's id."""


class StepTransition:
    """Every step of the run that meets the conditions, moved to one state. The sources are those of the table.

    Attributes:
        target: The state.
        claims: Whether it is a worker's claim, about which attached guards are asked.
        where: Which steps.
    """

    def __init__(self, target: StepState, *conditions: ColumnElement[bool], **values: Any) -> None:
        """Describe the move.

        Args:
            target: The state to move to.
            *conditions: On columns of `workflow_steps`. The names of parameters in it must not be those of columns.
            **values: Further columns to write with the move, values, expressions or parameters.
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
        """Does both, on PostgreSQL."""
        return self.append.add_cte(self.update.returning(_steps.c.id).cte("moved"))
