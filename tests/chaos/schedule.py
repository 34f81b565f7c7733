"""Which fault comes when: made of a seed alone, so that a run can be repeated. Pure; `injection` carries it out."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["SERVERS", "Fault", "Kind", "make_schedule", "worker_names"]

_FIRST_S = 4.0  # the load has begun by then
_READY_S = 6.0  # what is started again gets this long before it is broken again


class Kind(StrEnum):
    """What is done, in the words of the report."""

    KILL = "worker killed (SIGKILL of MAIN)"
    WARM = "worker told to stop (SIGTERM, warm)"
    COLD = "worker told to stop at once (SIGQUIT, cold)"
    FREEZE = "worker frozen longer than its leases (SIGSTOP, SIGCONT)"
    CHILD = "pool process killed (SIGKILL)"
    ENGINE = "engine process killed (SIGKILL)"
    BROKER = "broker killed, and empty when it is back"
    EVENTS = "Redis of the events killed"
    DATABASE = "PostgreSQL killed (SIGKILL of the postmaster)"


SERVERS = {Kind.BROKER: "broker", Kind.EVENTS: "events", Kind.DATABASE: "database"}

_OFTEN = {Kind.KILL: 3, Kind.WARM: 2, Kind.COLD: 2, Kind.CHILD: 4, Kind.ENGINE: 3}
_DOWN_S = {
    Kind.FREEZE: (2.5, 6.0),
    Kind.CHILD: (0.0, 0.0),
    Kind.ENGINE: (0.0, 0.0),
    Kind.EVENTS: (1.0, 8.0),
    Kind.BROKER: (0.5, 5.0),
    Kind.DATABASE: (0.5, 5.0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at_s: When, in seconds from the beginning.
        kind: What.
        target: The worker or server.
        down_s: How long until the target is started again, or goes on.
        choice: Which of the target's pool processes, by its place among them.
    """

    at_s: float
    kind: Kind
    target: str
    down_s: float
    choice: int

    def __str__(self) -> str:
        again = f", back after {self.down_s:.1f} s" if self.down_s else ""
        return f"{self.at_s:6.1f} s  {self.target:<9} {self.kind}{again}"


def worker_names(count: int) -> list[str]:
    """The names of so many workers."""
    return [f"worker-{number}" for number in range(1, count + 1)]


def make_schedule(seed: str, *, duration_s: float, every_s: float, workers: int) -> list[Fault]:
    """The faults of a run, in order of time; the same for the same arguments.

    Each kind comes once before any comes twice. A target that is down is not broken again.
    """
    dice = random.Random(f"{seed} faults")  # noqa: S311 - repeatable on purpose
    kinds = _deal(dice)
    free_at = dict.fromkeys([*worker_names(workers), *SERVERS.values()], 0.0)
    faults: list[Fault] = []
    now_s = _FIRST_S
    while now_s < duration_s:
        kind = next(kinds)
        target = SERVERS.get(kind) or dice.choice(worker_names(workers))
        at_s = max(now_s, free_at[target])
        down_s = dice.uniform(*_DOWN_S.get(kind, (0.0, 4.0)))
        if at_s < duration_s:
            faults.append(Fault(round(at_s, 2), kind, target, round(down_s, 2), dice.randrange(1000)))
        free_at[target] = at_s + down_s + _READY_S
        now_s += dice.uniform(0.4, 1.6) * every_s
    return sorted(faults, key=lambda fault: fault.at_s)


def _deal(dice: random.Random) -> Iterator[Kind]:
    yield from _shuffled(dice, list(Kind))
    while True:
        yield from _shuffled(dice, [kind for kind in Kind for _ in range(_OFTEN.get(kind, 2))])


def _shuffled(dice: random.Random, kinds: Sequence[Kind]) -> list[Kind]:
    return dice.sample(kinds, len(kinds))
