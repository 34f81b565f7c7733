"""Two guards for tests: one that can be closed, and one that fails."""

from __future__ import annotations

from interlock.core import GuardContext, guard

closed: set[str] = set()
"""What the office does not let pass: keys of steps, or `*`."""


asked: list[GuardContext] = []


@guard("tests.office_hours")
def office_hours(context: GuardContext) -> bool:
    asked.append(context)
    return not closed & {"*", context.entity.get("key")}


@guard("tests.broken")
def broken(context: GuardContext) -> bool:
    return bool(context.entity["no such column"])
