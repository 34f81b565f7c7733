"""Interlock: durable, audited, controllable workflows for the Celery that teams already run."""

from interlock.client.client import Client
from interlock.client.step import Step
from interlock.client.workflow import Workflow
from interlock.core.retry import RetryPolicy
from interlock.signals.receivers import StepInterrupted
from interlock.worker import install

__all__ = ["Client", "RetryPolicy", "Step", "StepInterrupted", "Workflow", "install"]
