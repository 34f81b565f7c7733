"""Named places at which a test can break what production would only rarely see break.

A place stands at every commit, publish, claim and acknowledgement. Nothing happens there unless `INTERLOCK_FAULTS` was in the
environment when the process started, or a test injects a plan: then a rule may end the process, hold or delay it, raise, lose the
answer of a commit that was applied, or have a message sent twice or never. This module decides nothing about workflows.
"""

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

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PLACES", "FaultInjected", "FaultPlan", "FaultRule", "fault_point", "injected"]

VARIABLE: Final = "INTERLOCK_FAULTS"

#: Kinds of transaction; each has a place before its commit and one behind it, before anything of it is told.
_TRANSACTIONS: Final = {
    "claim": "a worker claims an attempt",
    "complete": "a result is recorded",
    "fail": "a failure is recorded",
    "refuse": "an attempt that could not even be sent is failed",
    "revoke": "a revoke from outside is applied",
    "body": "a running body stores or asks something",
    "heartbeat": "leases are renewed",
    "redispatch": "lost messages are made due and sent again",
    "sweep": "the sweeper moves something that is due",
    "upkeep": "bookkeeping that moves no state",
    "verb": "a verb in the caller's own session",
}

#: Every place, and what has and has not happened when it is reached.
PLACES: Final = {
    **{f"{name}.commit": f"{what}: written, not committed" for name, what in _TRANSACTIONS.items()},
    **{f"{name}.committed": f"{what}: committed, nothing told yet" for name, what in _TRANSACTIONS.items()},
    "claim.sent": "a claim by the short way is on its way to the database, its answer not read",
    "complete.sent": "a result by the short way is on its way to the database, its answer not read",
    "runthrough.commit": "a result is recorded by a process that offers to go on with the next step: nothing written",
    "runthrough.committed": "a result and the claim of the next step are committed, nothing told yet",
    "sweep.found": "a sweeper has read what is due, and locked nothing",
    "missing.asked": "broker and workers have said which messages they have, nothing is sent again",
    "command.commit": "a control command is carried out and its outcome written, nothing committed",
    "dispatch.publish": "a step's message is about to go to the broker",
    "dispatch.published": "a step's message is with the broker, or on its way there",
    "events.publish": "the events of a commit are about to go to Redis",
    "events.published": "the events of a commit are with Redis",
    "interrupt.broadcast": "workers are about to be told which bodies are to stop",
    "body.begin": "a step is claimed, its body has not begun",
    "body.end": "a body has returned, its result is not recorded",
    "task.ack": "a step's outcome is recorded, its message not acknowledged (where it is acknowledged late)",
    "note.send": "MAIN is about to tell the engine something",
    "engine.ready": "an engine is at work, and has not said so to MAIN",
    "control.send": "a client is about to send a command",
    "control.received": "an engine has a command, and has done nothing",
    "control.ack": "a command is carried out and committed, its message not acknowledged",
    "control.reply": "a command is acknowledged, its sender not answered",
}

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
        """Do what the rules say of `place`; see `fault_point`."""
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
        """The variable that makes a new process obey this plan."""
        return {VARIABLE: self.model_dump_json()}

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


def _inherited() -> FaultPlan | None:
    text = os.environ.get(VARIABLE)
    return FaultPlan.model_validate_json(text) if text else None


_plan: FaultPlan | None = _inherited()


def fault_point(place: str, subject: str = "") -> int:
    """Mark a place; without a plan this is one comparison.

    Args:
        place: A key of `PLACES`.
        subject: What it is about, so that a rule can mean one of many.

    Returns:
        How many times to do what follows, where that is sending something: 1, or 0 and 2 where a rule says so.
    """
    return 1 if _plan is None else _plan.reach(place, subject)


@contextmanager
def injected(folder: Path, *rules: FaultRule) -> Iterator[FaultPlan]:
    """Obey `rules` in this process, and in those it forks, for the length of a block."""
    global _plan  # noqa: PLW0603 - one plan per process; a parameter would run through every signature for tests alone
    before, _plan = _plan, FaultPlan(folder=folder, rules=rules)
    try:
        yield _plan
    finally:
        _plan = before
