"""Rules and record: the state machine, its tables and its database. Knows no Celery, no broker and no Redis.

The names are loaded when they are first used: most modules of core need neither SQLAlchemy nor pydantic.
"""

from typing import TYPE_CHECKING

from .lazy_names import lazy_names

if TYPE_CHECKING:
    from .database.database import Database, open_database
    from .database.tables import StateHistory, WorkflowRun, WorkflowStep
    from .errors import (
        EntityNotFound,
        GuardRefused,
        InterlockError,
        InvalidPlan,
        StateMachineError,
        TransitionConflict,
        TransitionNotAllowed,
        TransitionVetoed,
        UnknownState,
    )
    from .events import EventEmitter, StateChange
    from .machine.guards import GuardContext, guard
    from .machine.state_machine import StateMachine
    from .model.states import StepState, WorkflowState
    from .operations.controller import WorkflowController
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            ".database.database": ["Database", "open_database"],
            ".database.tables": ["StateHistory", "WorkflowRun", "WorkflowStep"],
            ".errors": [
                "EntityNotFound",
                "GuardRefused",
                "InterlockError",
                "InvalidPlan",
                "StateMachineError",
                "TransitionConflict",
                "TransitionNotAllowed",
                "TransitionVetoed",
                "UnknownState",
            ],
            ".events": ["EventEmitter", "StateChange"],
            ".machine.guards": ["GuardContext", "guard"],
            ".machine.state_machine": ["StateMachine"],
            ".model.states": ["StepState", "WorkflowState"],
            ".operations.controller": ["WorkflowController"],
        },
    )

__all__ = [
    "Database",
    "EntityNotFound",
    "EventEmitter",
    "GuardContext",
    "GuardRefused",
    "InterlockError",
    "InvalidPlan",
    "StateChange",
    "StateHistory",
    "StateMachine",
    "StateMachineError",
    "StepState",
    "TransitionConflict",
    "TransitionNotAllowed",
    "TransitionVetoed",
    "UnknownState",
    "WorkflowController",
    "WorkflowRun",
    "WorkflowState",
    "WorkflowStep",
    "guard",
    "open_database",
]
