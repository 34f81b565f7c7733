"""The base of due work that belongs to a run: it is found without a lock, and done under the run's lock.

Between the two anything may have happened, so `RunKind.act` checks again what `RunKind.due` found.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Final

from sqlalchemy import exists, true

from interlock.core.database.tables import WorkflowRun, WorkflowStep, table_of_model
from interlock.core.machine.unit_of_work import UnitOfWork
from interlock.core.model.states import WorkflowState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    from interlock.core.database.database import Database
    from interlock.core.events import Effects
    from interlock.core.settings import Settings

__all__ = ["EXECUTING", "NOTHING", "Due", "RunKind", "SweepResult", "without"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)

#: For statements over steps: the step's run is executing.
EXECUTING: Final = exists().where(_runs.c.id == _steps.c.run_id, _runs.c.status == WorkflowState.EXECUTING.value)


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What was done, in numbers."""

    redispatched: int = 0
    lost: int = 0
    timed_out: int = 0
    retried: int = 0
    runs_started: int = 0
    runs_overdue: int = 0
    decided: int = 0
    revived: int = 0
    missing: int = 0

    def __bool__(self) -> bool:
        """Whether anything was."""
        return any(getattr(self, field.name) for field in fields(self))

    def __add__(self, other: SweepResult) -> SweepResult:
        """Both together."""
        return SweepResult(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


NOTHING: Final = SweepResult()


@dataclass(frozen=True, slots=True)
class Due:
    """What was found in one run.

    Attributes:
        run_id: The run.
        ids: Of what is due in it: steps, requests for approval, or the run itself.
    """

    run_id: str
    ids: tuple[str, ...]


class RunKind(ABC):
    """One kind of due work.

    Attributes:
        name: For logs and fault points.
        may_stay_due: Whether what is due may stay so though nothing can be done, and would hide what is due behind it.
    """

    name: ClassVar[str]
    may_stay_due: ClassVar[bool] = False

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings

    @abstractmethod
    def due(self, connection: Connection, limit: int, backed_off: Sequence[str]) -> list[Due]:
        """Find what is due, longest first, without a lock.

        Args:
            connection: Only read from.
            limit: How many ids at most.
            backed_off: Runs to leave out.
        """

    @abstractmethod
    def act(self, unit: UnitOfWork, due: Due) -> SweepResult:
        """Do what is due and still can be done, in a run that is locked; `enter` finishes the unit."""

    def enter(self, due: Due) -> SweepResult:
        """Lock the run and `act`, in a transaction of its own."""

        def work(connection: Connection, effects: Effects) -> SweepResult:
            unit = UnitOfWork.lock(connection, effects, due.run_id, emitter=self.database.emitter)
            result = self.act(unit, due)
            unit.finish()
            return result

        return self.database.transact(work, "sweep")


def without(backed_off: Sequence[str], run_id: ColumnElement[str]) -> ColumnElement[bool]:
    """The condition that leaves out runs that are backed off."""
    return run_id.not_in(backed_off) if backed_off else true()
