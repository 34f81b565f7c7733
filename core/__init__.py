"""Rules and record: the state machine, its tables and its database. Knows no Celery, no broker and no Redis."""

from .controller import WorkflowController
from .database import Database, open_database
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
from .guards import GuardContext, guard
from .machine import StateMachine
from .models import StateHistory, WorkflowRun, WorkflowStep
from .states import StepState, WorkflowState

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
