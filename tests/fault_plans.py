"""Breaks processes at the fault points of the product, as a plan says; processes under test inherit it by the environment."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy.exc import OperationalError

from interlock.core.fault_points import PLACES, VARIABLE, obey

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FaultInjected", "FaultPlan", "FaultRule", "injected", "reach"]

_PLAN: Final = "INTERLOCK_TEST_FAULT_PLAN"
_HOLD_POLL_S: Final = 0.01
_HOLD_AT_MOST_S: Final = 120.0


class FaultInjected(Exception):
    """What a rule with the action `raise` raises."""


class FaultRule(BaseModel):
    """What happens at one place."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    place: str
    """A key of `PLACES`; `*` for all of them."""
    action: Literal["note", "crash", "delay", "hold", "raise", "lose_answer", "drop", "duplicate"] = "note"
    """`note` only counts. `crash` is SIGKILL to this process. `hold` waits until the file `released` is in the plan's folder.
    `lose_answer` raises what a driver raises when the connection breaks. `drop` and `duplicate` are for what is sent."""
    subject: str = ""
    """Part of the subject (a task id, a command, a verb) that is meant; empty for any."""
    skip: int = Field(default=0, ge=0)
    """How many times it is let pass first, counted over all processes."""
    times: int | None = Field(default=1, ge=1)
    """How many times it acts, over all processes; None for always."""
    delay_s: float = Field(default=0.0, ge=0)
    """How long `delay` lasts."""

    @field_validator("place")
    @classmethod
    def _is_known(cls, place: str) -> str:
        if place != "*" and place not in PLACES:
            msg = f"there is no place {place!r}"
            raise ValueError(msg)
        return place


class FaultPlan(BaseModel):
    """Rules, and a folder in which the processes that obey them count together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    rules: tuple[FaultRule, ...]

    def reach(self, place: str, subject: str) -> int:
        """Do what the rules say of `place`; see `interlock.core.fault_points.fault_point`."""
        repeat = 1
        for number, rule in enumerate(self.rules):
            if rule.place not in (place, "*") or rule.subject not in subject:
                continue
            reached = self._count(f"{number}.{place}")
            if reached > rule.skip and (rule.times is None or reached <= rule.skip + rule.times):
                repeat = self._act(rule, place, repeat)
        return repeat

    def hits(self, place: str, subject: str | None = None) -> int:
        """How often `place` was reached, with a subject that a rule means; by the rule that saw it most often.

        Args:
            place: A place.
            subject: Asks only the rules for this subject.
        """
        numbers = [number for number, rule in enumerate(self.rules) if subject in (None, rule.subject)]
        counters = [self.folder / f"{number}.{place}" for number in numbers]
        return max((int(counter.read_text() or 0) for counter in counters if counter.exists()), default=0)

    def release(self) -> None:
        """Let everything that holds go on, now and later."""
        (self.folder / "released").touch()

    def environment(self) -> dict[str, str]:
        """The variables that make a new process obey this plan."""
        return {VARIABLE: __name__, _PLAN: self.model_dump_json()}

    def _count(self, name: str) -> int:
        with (self.folder / name).open("a+") as counter:
            fcntl.flock(counter, fcntl.LOCK_EX)
            counter.seek(0)
            reached = int(counter.read() or 0) + 1
            counter.truncate(0)
            counter.write(str(reached))
        return reached

    def _act(self, rule: FaultRule, place: str, repeat: int) -> int:
        match rule.action:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "delay":
                time.sleep(rule.delay_s)
            case "hold":
                self._hold()
            case "raise":
                raise FaultInjected(place)
            case "lose_answer":
                lost = ConnectionResetError(f"fault injected at {place}: the connection was lost")
                raise OperationalError(None, None, lost, connection_invalidated=True)
            case "drop":
                return 0
            case "duplicate":
                return repeat * 2
        return repeat

    def _hold(self) -> None:
        deadline = time.monotonic() + _HOLD_AT_MOST_S
        while not (self.folder / "released").exists() and time.monotonic() < deadline:
            time.sleep(_HOLD_POLL_S)


def reach(place: str, subject: str) -> int:
    """Do what the inherited plan says of a place."""
    return _inherited.reach(place, subject)


@contextmanager
def injected(folder: Path, *rules: FaultRule) -> Iterator[FaultPlan]:
    """Obey `rules` in this process, and in those it forks, for the length of a block."""
    plan = FaultPlan(folder=folder, rules=rules)
    before = obey(plan.reach)
    try:
        yield plan
    finally:
        obey(before)


_inherited: Final = FaultPlan.model_validate_json(os.environ.get(_PLAN, '{"folder": ".", "rules": []}'))
