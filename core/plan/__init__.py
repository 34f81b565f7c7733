"""The description of a workflow: models, graph and validation; knows no database and no Celery."""

from .faults import Fault
from .graph import dependents, find_cycle, find_cycles, topological_levels
from .models import (
    ApprovalSpec,
    Decision,
    MapSpec,
    OnExternalRevoke,
    OnFailure,
    OnReject,
    PlanSpec,
    StepSpec,
    Trigger,
)
from .routing import ROUTING_OPTIONS
from .validation import PlanLimits, examine_plan, validate_plan

__all__ = [
    "ROUTING_OPTIONS",
    "ApprovalSpec",
    "Decision",
    "Fault",
    "MapSpec",
    "OnExternalRevoke",
    "OnFailure",
    "OnReject",
    "PlanLimits",
    "PlanSpec",
    "StepSpec",
    "Trigger",
    "dependents",
    "examine_plan",
    "find_cycle",
    "find_cycles",
    "topological_levels",
    "validate_plan",
]
