"""Rules and record: the state machine, its tables and its database. Knows no Celery, no broker and no Redis."""

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
