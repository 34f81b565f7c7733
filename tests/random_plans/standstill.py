"""Whether a run that stands could go on: asked while it waits for people. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .plans import item_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .plans import Plan, StepPlan

__all__ = ["movable"]

_SETTLED = ("completed", "skipped", "cancelled", "failed")


def movable(plan: Plan, states: Mapping[str, str]) -> list[str]:
    """What ought to have moved in a run in which nothing does, in words.

    Args:
        plan: The plan of the run.
        states: The states of its steps, items included, when nothing is claimed, due or on its way: a failed step has failed for
            good, and a paused one keeps its place.
    """
    held = sum(state == "paused" for state in states.values())
    free = plan.max_parallel is None or held < plan.max_parallel
    return list(_movable(plan, states, free=free))


def _movable(plan: Plan, states: Mapping[str, str], *, free: bool) -> Iterator[str]:
    for step in plan.steps:
        if states.get(step.key) == "pending":
            ends = {key: states[key] for key in step.after}
            if _is_hopeless(step, ends):
                yield f"{step.key} waits, and can never begin: {step.trigger} of {ends}"
            elif _may_begin(step, ends) and (free or step.gate is not None or step.items is not None):
                yield f"{step.key} waits, and may begin: {step.trigger} of {ends}"
        elif step.items is not None and states.get(step.key) == "running":
            yield from _items(step, states, free=free)


def _may_begin(step: StepPlan, ends: Mapping[str, str]) -> bool:
    if step.trigger == "any_failed":
        return "failed" in ends.values()
    good = ("completed",) if step.trigger == "all_completed" else _SETTLED
    return all(end in good for end in ends.values())


def _is_hopeless(step: StepPlan, ends: Mapping[str, str]) -> bool:
    if step.trigger == "all_completed":
        return any(end in _SETTLED and end != "completed" for end in ends.values())
    return step.trigger == "any_failed" and all(end in _SETTLED and end != "failed" for end in ends.values())


def _items(step: StepPlan, states: Mapping[str, str], *, free: bool) -> Iterator[str]:
    items = [states.get(item_key(step.key, index)) for index in range(len(step.items or ()))]
    count = Counter(items)
    if all(state in _SETTLED for state in items):
        yield f"{step.key} is running, and its items are settled: {items}"
    limited = step.items_at_once is not None and count["paused"] >= step.items_at_once
    if count["pending"] and free and not limited:
        yield f"{step.key}: {count['pending']} of its items wait, and may begin"
