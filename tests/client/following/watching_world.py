"""What a watch sees of the world, as plain data: committed histories, a clock, and a reader that may be out of order."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from interlock.client.following.catch_up import Listen, Read, RunWatch
from interlock.core.errors import DatabaseBusy
from interlock.core.queries.history import PAGE, RunHead, SessionHeads
from tests.signals.scripts import change

if TYPE_CHECKING:
    from interlock.client.following.session_catch_up import SessionWatch
    from interlock.core.events import StateChange

_START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def seqs(changes: list[StateChange]) -> list[int]:
    """Their numbers."""
    return [each.seq for each in changes]


@dataclass
class World:
    """The committed history of some runs, a clock, and a reader that may be out of order."""

    now: float = 1000.0
    committed: dict[str, list[StateChange]] = field(default_factory=dict)
    reads: int = 0
    broken: bool = False
    page: int = PAGE

    def clock(self) -> float:
        return self.now

    def fetch(self, after_seq: int) -> list[StateChange]:
        """The only run's history."""
        return self.changes(next(iter(self.committed)), after_seq)

    # the session's reader

    def changes(self, workflow_id: str, after_seq: int = 0) -> list[StateChange]:
        self._count()
        return self.committed[workflow_id][after_seq : after_seq + self.page]

    def head(self, workflow_id: str) -> RunHead | None:
        self._count()
        changes = self.committed[workflow_id]
        return RunHead(len(changes), changes[-1].created_at if _over(changes) else None) if changes else None

    def heads(self, *, created_after: datetime | None = None, ended_after: datetime | None = None) -> SessionHeads:
        self._count()
        found = {
            workflow_id: len(changes)
            for workflow_id, changes in self.committed.items()
            if changes and (not _over(changes) or _within(changes, created_after, ended_after))
        }
        return SessionHeads(at=self.time(), seqs=found)

    def time(self) -> datetime:
        return _START + timedelta(seconds=self.now)

    def _count(self) -> None:
        self.reads += 1
        if self.broken:
            raise DatabaseBusy


def _over(changes: list[StateChange]) -> bool:
    return changes[-1].to_state == "completed"


def _within(changes: list[StateChange], created_after: datetime | None, ended_after: datetime | None) -> bool:
    created, ended = changes[0].created_at, changes[-1].created_at
    assert created is not None
    assert ended is not None
    return created_after is not None and ended_after is not None and created > created_after and ended > ended_after


def settle(plan: RunWatch | SessionWatch, got: list[StateChange]) -> Listen | None:
    """Do what the plan asks for until it wants to listen, or is done; collect what it gives out."""
    for _ in range(1000):
        got += plan.take()
        action = plan.next_action()
        if not isinstance(action, Read):
            return action
        try:
            answer = action.ask()
        except DatabaseBusy as error:
            plan.read_failed(error)
        else:
            action.tell(answer)
    pytest.fail("it reads and reads")


def commit(world: World, n: int, count: int) -> None:
    """Commit up to `count` changes of a run of six, each a little later than the one before."""
    changes = world.committed[str(n)]
    for seq in range(len(changes) + 1, min(len(changes) + count, 6) + 1):
        world.now += 0.001
        end = {"to_state": "completed", "entity_type": "workflow_run"} if seq == 6 else {}
        changes.append(change(seq, workflow_id=str(n), created_at=world.time(), **end))
