"""Reads the row of a run, locked or not: the columns that every transaction on a run needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select

from interlock.core.database.tables import WorkflowRun, table_of_model
from interlock.core.errors import RunNotFound
from interlock.core.model.states import WorkflowState
from interlock.core.model.transitions import WORKFLOW_TABLE

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["LockedRun", "read_run"]

_runs = table_of_model(WorkflowRun)

_READ_RUN = select(
    _runs.c.id,
    _runs.c.session_id,
    _runs.c.name,
    _runs.c.status,
    _runs.c.seq,
    _runs.c.open_steps,
    _runs.c.waiting_steps,
    _runs.c.max_parallel,
).where(_runs.c.id == bindparam("run_id"))
_LOCK_RUN = _READ_RUN.with_for_update()


@dataclass(slots=True)
class LockedRun:
    """A run's columns as this transaction has them; `UnitOfWork.finish` writes back what has changed."""

    id: str
    session_id: str
    name: str | None
    status: WorkflowState
    seq: int
    open_steps: int
    waiting_steps: int = 0
    max_parallel: int | None = None

    @property
    def is_executing(self) -> bool:
        """Whether steps may start and end."""
        return self.status is WorkflowState.EXECUTING

    @property
    def stored(self) -> tuple[WorkflowState, int, int, int]:
        """What `finish` writes back."""
        return self.status, self.seq, self.open_steps, self.waiting_steps


def read_run(connection: Connection, run_id: str, *, lock: bool) -> LockedRun:
    """Read the run, locked or not.

    Raises:
        RunNotFound: No such run.
    """
    row = connection.execute(_LOCK_RUN if lock else _READ_RUN, {"run_id": run_id}).one_or_none()
    if row is None:
        raise RunNotFound(run_id)
    return LockedRun(
        id=row.id,
        session_id=row.session_id,
        name=row.name,
        status=WORKFLOW_TABLE.parse(row.status),
        seq=row.seq,
        open_steps=row.open_steps,
        waiting_steps=row.waiting_steps,
        max_parallel=row.max_parallel,
    )
