"""Interlock: durable, audited, controllable workflows for the Celery that teams already run.

The names are loaded when they are first used, so that `interlock.core` works without Celery, broker or Redis.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interlock.client.client import Client
    from interlock.client.step import Step
    from interlock.client.workflow import Workflow
    from interlock.core.retry import RetryPolicy
    from interlock.signals.current_step import ApprovalRequested, CurrentStep, Decision, current_step
    from interlock.signals.receivers import StepInterrupted
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
    "ApprovalRequested": "interlock.signals.current_step",
    "Client": "interlock.client.client",
    "CurrentStep": "interlock.signals.current_step",
    "Decision": "interlock.signals.current_step",
    "RetryPolicy": "interlock.core.retry",
    "Step": "interlock.client.step",
    "StepInterrupted": "interlock.signals.receivers",
    "Workflow": "interlock.client.workflow",
    "current_step": "interlock.signals.current_step",
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
