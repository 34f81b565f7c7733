"""What is wrong with a plan of one step, for tests of what a step may say."""

from __future__ import annotations

from typing import Any

from interlock.core.plan import examine_plan


def faults_in(step: dict[str, Any]) -> list[str]:
    """What is said about one step, which has a key and a task unless it says otherwise."""
    _, faults = examine_plan([{"key": "a", "task": "t", **step}])
    return [str(fault) for fault in faults]
