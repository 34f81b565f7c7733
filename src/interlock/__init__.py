"""Interlock: durable, audited, controllable workflows for the Celery that teams already run.

The names are loaded when they are first used, so that `interlock.core` works without Celery, broker or Redis.
"""

from typing import TYPE_CHECKING

from interlock.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from interlock.client.authoring.step import Step
    from interlock.client.authoring.workflow import Workflow
    from interlock.client.client import Client
    from interlock.core.model.retry import RetryPolicy
    from interlock.signals.steps.current_step import ApprovalRequested, CurrentStep, Decision, current_step
    from interlock.signals.steps.held_attempt import StepInterrupted
    from interlock.worker.installation import install
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            ".client.authoring.step": ["Step"],
            ".client.authoring.workflow": ["Workflow"],
            ".client.client": ["Client"],
            ".core.model.retry": ["RetryPolicy"],
            ".signals.steps.current_step": ["ApprovalRequested", "CurrentStep", "Decision", "current_step"],
            ".signals.steps.held_attempt": ["StepInterrupted"],
            ".worker.installation": ["install"],
        },
    )

__all__ = [
    "ApprovalRequested",
    "Client",
    "CurrentStep",
    "Decision",
    "RetryPolicy",
    "Step",
    "StepInterrupted",
    "Workflow",
    "current_step",
    "install",
]
