"""The list of checks. To add one, write one function under `@check` in a module that `checks` imports.

A check is pure: it looks at `Facts` and yields what is wrong. What it needs and is not known raises `NotKnown`, by which it says
that it cannot tell; what is of no concern here, `DoesNotApply`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .findings import DoesNotApply, Finding, Found, NotKnown, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .facts import Facts

    Look = Callable[[Facts], Iterable[Found | str]]

__all__ = ["CHECKS", "Check", "check"]

CHECKS: dict[str, Check] = {}
"""Code → check, in the order in which they are carried out and documented."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing to look at.

    Attributes:
        code: Its name.
        severity: That of what it finds, where it does not say otherwise.
        holds: What is so where all is well.
        why: Why the opposite loses work.
        remedy: What to do about it.
        look: Yields what is wrong.
    """

    code: str
    severity: Severity
    holds: str
    why: str
    remedy: str
    look: Look

    def findings(self, facts: Facts) -> Iterator[Finding]:
        """What it finds; one finding that says so where all is well, or where it cannot tell; none where it does not apply."""
        try:
            found = list(self.look(facts))
        except DoesNotApply:
            return
        except NotKnown as reason:
            yield Finding(code=self.code, severity=Severity.UNKNOWN, what=str(reason))
            return
        for each in (one if isinstance(one, Found) else Found(one) for one in found):
            yield Finding(
                code=self.code,
                severity=each.severity or self.severity,
                what=each.what,
                why=self.why,
                remedy=each.remedy or self.remedy,
            )
        if not found:
            yield Finding(code=self.code, severity=Severity.OK, what=self.holds)


def check(code: str, severity: Severity, *, holds: str, why: str, remedy: str) -> Callable[[Look], Look]:
    """Register the decorated function as a check; see `Check` for the arguments."""

    def register(look: Look) -> Look:
        if code in CHECKS:
            raise ValueError(code)
        CHECKS[code] = Check(code=code, severity=severity, holds=holds, why=why, remedy=remedy, look=look)
        return look

    return register
