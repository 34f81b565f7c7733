"""What must hold after every fault: the history, the entities, what a subscriber received and what bodies did agree.

Nothing here repairs anything. `findings` only reads, waiting for the subscriber to hear what is already committed.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from interlock.client.following.watching import watch_session
from interlock.core.database.tables import StateHistory, WorkflowRun, WorkflowStep
from interlock.core.machine.cause import ENGINE
from interlock.core.queries.history import HistoryReader
from interlock.core.verify import Verification, verify
from interlock.signals.events.subscriber import Subscriber, Target
from tests.core.checker import faults as checker_faults
from tests.processes import wait_until
from tests.worker.deployment import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Row

    from interlock.core.events import StateChange
    from interlock.core.queries.history import RunHead, SessionHeads
    from tests.worker.deployment import Deployment

_runs = WorkflowRun.__table__
_steps = WorkflowStep.__table__
_history = StateHistory.__table__

# Each entry of the history that lets a step's body run once more.
_RUNS_AGAIN = ("failed", "paused", "waiting_approval")


class _Stopped(Exception):
    """The test is over."""


class _StoppableReader:
    """A `SessionReader` that says when the watch has begun, and ends it when it is told to."""

    def __init__(self, reader: HistoryReader) -> None:
        self._reader = reader
        self.begun = threading.Event()
        self.stop = threading.Event()

    def changes(self, workflow_id: str, after_seq: int = 0) -> list[StateChange]:
        return self._reader.changes(workflow_id, after_seq)

    def head(self, workflow_id: str) -> RunHead | None:
        return self._reader.head(workflow_id)

    def heads(self, *, created_after: datetime | None = None, ended_after: datetime | None = None) -> SessionHeads:
        if self.stop.is_set():
            raise _Stopped
        heads = self._reader.heads(created_after=created_after, ended_after=ended_after)
        self.begun.set()
        return heads


class SessionRecord:
    """Everything that a subscriber of the session receives, from before the first run on."""

    def __init__(self, deployment: Deployment) -> None:
        client = deployment.client
        self._reader = _StoppableReader(HistoryReader(deployment.database, client.session_id))
        self._subscriber = Subscriber(
            deployment.events.url(0), Target(client.session_id, prefix=client.settings.channel_prefix)
        )
        self._received: dict[str, list[StateChange]] = defaultdict(list)
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._listen, name="session-record", daemon=True)
        self._thread.start()
        wait_until(self._reader.begun.is_set, DEADLINE_S, "the subscriber listens")

    def of(self, run_id: str) -> list[StateChange]:
        """What was received of a run, in the order in which it came."""
        return list(self._received[run_id])

    @contextmanager
    def tampered(self, run_id: str) -> Iterator[list[StateChange]]:
        """What was received of a run, to be changed for the length of a block."""
        before = self.of(run_id)
        try:
            yield self._received[run_id]
        finally:
            self._received[run_id] = before

    def close(self) -> None:
        """Stop listening."""
        self._reader.stop.set()
        self._thread.join(DEADLINE_S)

    def _listen(self) -> None:
        try:
            for change in watch_session(self._reader, self._subscriber, poll_s=1):
                self._received[change.workflow_id].append(change)
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - reported as a finding
            self.error = error


class Soundness:
    """The checker of one deployment.

    Attributes:
        record: What the subscriber received.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.record = SessionRecord(deployment)

    def close(self) -> None:
        """Stop listening."""
        self.record.close()

    def findings(self, *, patience_s: float = DEADLINE_S) -> list[str]:
        """Everything that was lost, doubled, out of order or in contradiction; empty when all is sound.

        Args:
            patience_s: How long the subscriber may take to hear what is committed.
        """
        database = self._deployment.database
        found = [f"verify: {finding}" for finding in verify(database, Verification())]
        found += [f"checker: {text}" for text in checker_faults(database)]
        found += [f"subscriber: {text}" for text in self._received(patience_s)]
        found += [f"ledger: {text}" for text in self._effects()]
        return found

    def check(self) -> None:
        """Fail with everything that is wrong."""
        found = self.findings()
        assert not found, "\n".join(found)

    # --- what a subscriber received

    def _received(self, patience_s: float) -> Iterator[str]:
        with self._deployment.database.reading() as connection:
            rows = connection.execute(
                select(_history)
                .where(_history.c.session_id == self._deployment.client.session_id)
                .order_by(_history.c.workflow_id, _history.c.seq)
            ).all()
        recorded: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in rows:
            recorded[row.workflow_id].append(row)
        if self.record.error is not None:
            yield f"it ended with {self.record.error!r}"
        for run_id, history in recorded.items():
            try:
                wait_until(partial(self._has_received, run_id, len(history)), patience_s, "the subscriber has all")
            except TimeoutError:
                yield f"{run_id}: {len(history)} changes, {len(self.record.of(run_id))} received"
                continue
            expected = [(row.seq, row.entity_id, row.from_state, row.to_state) for row in history]
            heard = [(each.seq, each.entity_id, each.from_state, each.to_state) for each in self.record.of(run_id)]
            if heard != expected:
                yield f"{run_id}: received {heard}, the history is {expected}"

    def _has_received(self, run_id: str, count: int) -> bool:
        return len(self.record.of(run_id)) >= count

    # --- what bodies did

    def _effects(self) -> Iterator[str]:
        with self._deployment.database.reading() as connection:
            steps = connection.execute(select(_steps)).all()
            history = connection.execute(
                select(_history).where(_history.c.entity_type == "workflow_step").order_by(_history.c.seq)
            ).all()
        moves: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in history:
            moves[row.entity_id].append(row)
        bodies: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in self._deployment.ledger.effects():
            bodies[entry["step_id"]].append(entry)
        for step in steps:
            if step.task is not None:
                yield from _step_effects(step, moves[step.id], bodies[step.id])


def _step_effects(step: Row[Any], moves: list[Row[Any]], bodies: list[dict[str, Any]]) -> Iterator[str]:
    """Whether what a step's bodies did justifies what is recorded of it."""
    begun = Counter(entry["task_id"] for entry in bodies if entry["what"] == "begin")
    for task_id, count in begun.items():
        if count > 1:
            yield f"{step.key}: the body of attempt {task_id} ran {count} times"
    allowed = 1 + sum(row.to_state in _RUNS_AGAIN for row in moves)
    if begun.total() > allowed:
        yield f"{step.key}: {begun.total()} bodies ran, its history explains {allowed}"
    completions = [row for row in moves if row.to_state == "completed"]
    if step.status != "completed":
        if completions:
            yield f"{step.key}: is {step.status}, and was completed"
        return
    if len(completions) != 1:
        yield f"{step.key}: completed {len(completions)} times"
        return
    yield from _result_effect(step, completions[0], bodies)


def _result_effect(step: Row[Any], completion: Row[Any], bodies: list[dict[str, Any]]) -> Iterator[str]:
    meta, spec = completion.meta or {}, step.spec or {}
    by_worker = completion.transitioned_by == ENGINE or "@" in completion.transitioned_by
    if not by_worker or "reused_from" in meta or "map" in spec or ("approval" in spec and step.attempt == 0):
        return  # settled by a person, taken over, joined from its items, or decided: no body of its own
    ends = [entry for entry in bodies if entry["what"] == "end" and meta.get("task_id") in (None, entry["task_id"])]
    if not ends:
        yield f"{step.key}: is completed, and no body of {meta.get('task_id', 'any attempt')} has ended"
    elif all(entry["result"] != step.result for entry in ends):
        yield f"{step.key}: its result {step.result!r} is none of {[entry['result'] for entry in ends]}"
