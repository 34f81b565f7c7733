"""The states a workflow and a step can be in.

A member equals the lower-case string that the database stores. Which state may follow which is in `transitions`.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["StepState", "WorkflowState"]


class WorkflowState(StrEnum):
    """State of a workflow run."""

    DRAFT = "draft"
    PLANNING = "planning"
    EXECUTING = "executing"
    PAUSED = "paused"
    WAITING_APPROVAL = "waiting_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StepState(StrEnum):
    """State of a workflow step.

    `RUNNING` means that an attempt is queued or held; whether a worker holds it is the step's claim, a column.
    """

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING_APPROVAL = "waiting_approval"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
