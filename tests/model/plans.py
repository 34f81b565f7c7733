"""The part of a plan that the model knows: what the rules of a run depend on, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from interlock.core.model.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from interlock.core.model.readiness import Trigger

__all__ = ["Plan", "StepPlan", "retrying"]

Failing = Literal["fail", "continue", "pause"]


def retrying(*, max_attempts: int = 1, max_lost: int = 1, delay_s: float = 0.0) -> RetryPolicy:
    """A policy whose delay is always the same."""
    return RetryPolicy(
        max_attempts=max_attempts,
        max_lost=max_lost,
        initial_delay_s=delay_s,
        max_delay_s=max(delay_s, 1.0),
        multiplier=1.0,
        jitter=0.0,
    )


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of a plan.

    Attributes:
        key: Its name.
        after: Keys of the steps that it waits for.
        trigger: How these must have ended.
        on_failure: What its failure does to the run.
        policy: When it is tried again. The delay is also the countdown of the task's own retries.
        condition: What its `when` gives: True, False, or None for one that cannot be evaluated.
        asks: Whether a person is asked before it begins.
        works: Whether it has a task; without one it is only a question.
        on_reject: What a rejection does.
        default: What is decided when the deadline of the question passes.
        on_revoke: What a revoke from outside does to it.
    """

    key: str
    after: tuple[str, ...] = ()
    trigger: Trigger = "all_completed"
    on_failure: Failing = "fail"
    policy: RetryPolicy = field(default_factory=retrying)
    condition: bool | None = True
    asks: bool = False
    works: bool = True
    on_reject: Literal["cancel", "continue"] = "cancel"
    default: Literal["approve", "reject"] = "reject"
    on_revoke: Literal["cancel", "pause", "redispatch"] = "cancel"


class Plan:
    """Steps in their order, with who waits for whom."""

    def __init__(self, steps: Iterable[StepPlan]) -> None:
        self.steps: Mapping[str, StepPlan] = {step.key: step for step in steps}
        self.dependents: Mapping[str, tuple[str, ...]] = {
            key: tuple(step.key for step in self.steps.values() if key in step.after) for key in self.steps
        }
