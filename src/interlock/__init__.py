"""Interlock: durable, audited, controllable workflows for the Celery that teams already run.

The names are loaded when they are first used, so that `interlock.core` works without Celery, broker or Redis.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interlock.client.authoring.step import Step
    from interlock.client.authoring.workflow import Workflow
    from interlock.client.client import Client
    from interlock.core.model.retry import RetryPolicy
    from interlock.signals.steps.current_step import ApprovalRequested, CurrentStep, Decision, current_step
    from interlock.signals.steps.held_attempt import StepInterrupted
    from interlock.worker.installation import install

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

_HOMES = {
    "ApprovalRequested": "interlock.signals.steps.current_step",
    "Client": "interlock.client.client",
    "CurrentStep": "interlock.signals.steps.current_step",
    "Decision": "interlock.signals.steps.current_step",
    "RetryPolicy": "interlock.core.model.retry",
    "Step": "interlock.client.authoring.step",
    "StepInterrupted": "interlock.signals.steps.held_attempt",
    "Workflow": "interlock.client.authoring.workflow",
    "current_step": "interlock.signals.steps.current_step",
    "install": "interlock.worker.installation",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module 'interlock' has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
