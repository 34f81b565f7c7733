"""Names the places at which tests break a process: before and behind every commit, publish, claim and acknowledgement.

A place does nothing unless `INTERLOCK_FAULTS` names a module when the process starts (`tests/fault_plans.py` is one), or a test
calls `obey`. Then the process may be killed there, held, or told that an answer was lost, and a message sent twice or never.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    Reach: TypeAlias = Callable[[str, str], int]

__all__ = ["PLACES", "VARIABLE", "fault_point", "obey"]

VARIABLE: Final = "INTERLOCK_FAULTS"
"""Name of a module whose function `reach` is called at every place, with the place and its subject."""

# Kinds of transaction; each has a place before its commit and one behind it, before anything of it is told.
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

PLACES: Final = {
    **{f"{name}.commit": f"{what}: written, not committed" for name, what in _TRANSACTIONS.items()},
    **{f"{name}.committed": f"{what}: committed, nothing told yet" for name, what in _TRANSACTIONS.items()},
    "claim.sent": "a claim by the fast path is on its way to the database, its answer not read",
    "complete.sent": "a result by the fast path is on its way to the database, its answer not read",
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
"""Every place, and what has and has not happened when it is reached."""


_reach: Reach | None = None


def fault_point(place: str, subject: str = "") -> int:
    """Mark a place; without somebody who obeys, this is one comparison.

    Args:
        place: A key of `PLACES`.
        subject: What it is about, so that a fault can mean one of many.

    Returns:
        How many times to do what follows, where that is sending something: 1, or 0 and 2 where a fault says so.
    """
    return 1 if _reach is None else _reach(place, subject)


def obey(reach: Reach | None) -> Reach | None:
    """Have `reach` called at every place of this process and of those it forks; returns what was called before."""
    global _reach
    before, _reach = _reach, reach
    return before


if _module := os.environ.get(VARIABLE):
    obey(import_module(_module).reach)  # last: the module imports this one
