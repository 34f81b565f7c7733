"""Decides from a plan which steps may be run through, and names kinds of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .models import PlanSpec

__all__ = ["KIND_SEPARATOR", "NEXT_KINDS", "NOT_CARRIED", "kind_of", "kinds_ahead"]

KIND_SEPARATOR: Final = "\x1f"

NOT_CARRIED: Final = ("approval", "each", "map", "options", "timeout_s", "trigger", "when")
"""A step with any of these fields is never carried: it needs a person, a decision, a limit that MAIN keeps, or its own message."""

NEXT_KINDS: Final = "onward"
"""Field of a stored step, beside those of its plan: the kinds of the steps behind it that may be run through.

It travels in the message, so that workers offer only what the plan allows, and an offer names few kinds.
"""


def kind_of(task: str, queue: str | None) -> str:
    """A step's task and the queue that its plan names, as one text."""
    return f"{queue or ''}{KIND_SEPARATOR}{task}"


def kinds_ahead(plan: PlanSpec, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """For each step that has a step behind it which may be run through: the kinds of these.

    Args:
        plan: The plan.
        specs: Its steps by key, as they are stored.
    """
    ahead: dict[str, set[str]] = {}
    for step in plan.steps:
        asked_for = plan.run_through if step.run_through is None else step.run_through
        if asked_for and step.task is not None and not any(name in specs[step.key] for name in NOT_CARRIED):
            for upstream in step.after:
                ahead.setdefault(upstream, set()).add(kind_of(step.task, step.queue))
    return {key: sorted(kinds) for key, kinds in ahead.items()}
