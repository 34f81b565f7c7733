"""Replays `state_history` and compares it with the entities: the invariants of SPEC section 3 that a database can show.

It knows the edges from `edges`, not from the product, and recounts every counter from the plan.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from interlock.core.database.tables import ApprovalRequest, StateHistory, StepDependency, WorkflowRun, WorkflowStep
from interlock.core.verify import Verification, verify

from .edges import EDGES, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Row

    from interlock.core import Database

UNPLANNED = ("draft", "planning")
DONE = ("completed", "skipped", "cancelled")


def faults(database: Database) -> list[str]:
    """Everything that is wrong in the database, in words; empty when it is sound."""
    with database.snapshot() as connection:  # workers may be at it
        runs = connection.execute(select(WorkflowRun.__table__)).all()
        steps = _by(connection.execute(select(WorkflowStep.__table__)).all(), "run_id")
        history = _by(connection.execute(select(StateHistory.__table__)).all(), "workflow_id")
        edges = _by(connection.execute(select(StepDependency.__table__)).all(), "run_id")
        requests = _by(connection.execute(select(ApprovalRequest.__table__)).all(), "run_id")
    found = []
    for run in runs:
        ever_failed = {row.entity_id for row in history[run.id] if row.to_state == "failed"}
        plan = _Plan(run, steps[run.id], edges[run.id], requests[run.id], ever_failed)
        texts = [*_replay(run, plan.steps, sorted(history[run.id], key=lambda row: row.seq)), *plan.faults()]
        found += [text if text.startswith(run.id) else f"{run.id} {text}" for text in texts]
    return found


def check(database: Database) -> None:
    """Fail with everything that is wrong; the product's own checker must not find anything either."""
    found = faults(database)
    assert not found, "\n".join(found)
    alarms = list(verify(database, Verification()))
    assert not alarms, "\n".join(map(str, alarms))


def _by(rows: Sequence[Row[Any]], column: str) -> dict[str, list[Row[Any]]]:
    grouped: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        grouped[getattr(row, column)].append(row)
    return grouped


def _replay(run: Row[Any], steps: Mapping[str, Row[Any]], rows: Sequence[Row[Any]]) -> Iterator[str]:
    if [row.seq for row in rows] != list(range(1, len(rows) + 1)):
        yield f"{run.id}: seq is not gapless from 1: {[row.seq for row in rows]}"
    if run.seq != len(rows):
        yield f"{run.id}: the run says seq {run.seq}, its history has {len(rows)} rows"
    for name in ("id", "created_at"):
        values = [getattr(row, name) for row in rows]
        if values != sorted(values):
            yield f"{run.id}: {name} goes back against seq"
    states: dict[str, str] = {}
    for row in rows:
        yield from _move(run, states, row)
    entities = {run.id: run.status, **{step.id: step.status for step in steps.values()}}
    for entity, status in entities.items():
        last = states.get(entity)
        if last != status and not (last is None and status == "pending" and run.status in UNPLANNED):
            yield f"{entity}: is {status}, its history ends in {last}"
    if run.status in TERMINAL["workflow_run"] and rows and rows[-1].entity_id != run.id:
        yield f"{run.id}: something moved after the run had ended: {rows[-1].step_key} → {rows[-1].to_state}"


def _move(run: Row[Any], states: dict[str, str], row: Row[Any]) -> Iterator[str]:
    where = f"{run.id}#{row.seq} {row.step_key or 'run'}"
    if row.session_id != run.session_id:
        yield f"{where}: session {row.session_id} in a run of {run.session_id}"
    if states.get(row.entity_id) != row.from_state:
        yield f"{where}: leaves {row.from_state}, but was {states.get(row.entity_id)}"
    if row.from_state is not None and (row.from_state, row.to_state) not in EDGES[row.entity_type]:
        yield f"{where}: {row.from_state} → {row.to_state} is no edge"
    states[row.entity_id] = row.to_state


class _Plan:
    """One run's steps, and what their counters and timers ought to be."""

    def __init__(
        self,
        run: Row[Any],
        steps: Sequence[Row[Any]],
        edges: Sequence[Row[Any]],
        requests: Sequence[Row[Any]],
        ever_failed: set[str],
    ) -> None:
        self.run = run
        self.requests = requests
        self.ever_failed = ever_failed
        self.steps = {step.id: step for step in steps}
        self.upstream: dict[str, list[Row[Any]]] = defaultdict(list)
        for edge in edges:
            self.upstream[edge.step_id].append(self.steps[edge.upstream_id])

    def faults(self) -> Iterator[str]:
        open_steps = sum(not _settled(step) for step in self.steps.values())
        if self.run.open_steps != open_steps:
            yield f"{self.run.id}: open_steps is {self.run.open_steps}, {open_steps} are not settled"
        if self.requests:  # a step that was moved by hand asks nobody
            yield from self._asked()
        yield from self._places()
        if self.run.status in TERMINAL["workflow_run"]:
            yield from self._leftovers(open_steps)
        if self.run.status == "completed":
            yield from self._uncounted_failures()
        for step in self.steps.values():
            yield from self._trigger(step)
            # What settles while a run is paused is counted when it is resumed.
            if self.run.status == "executing" and step.status == "pending" and step.attempt == 0:
                yield from self._counters(step)
        if self.run.status == "executing":
            yield from self._forgotten()
            if not open_steps:
                yield f"{self.run.id}: executes although every step is settled"

    def _asked(self) -> Iterator[str]:
        """A step that waits for a person has one request that has not taken effect, and no other step has one."""
        waiting = Counter(step.id for step in self.steps.values() if step.status == "waiting_approval")
        if self.run.waiting_steps != waiting.total():
            yield f"{self.run.id}: waiting_steps is {self.run.waiting_steps}, {waiting.total()} wait for a person"
        asking = Counter(row.step_id for row in self.requests if row.decision != "closed" and not row.applied)
        ended = self.run.status in TERMINAL["workflow_run"]
        undecided = [row for row in self.requests if row.decision is None]
        if (ended and undecided) or (not ended and asking != waiting):
            yield f"{self.run.id}: is {self.run.status}, steps that ask: {asking}, steps that wait: {waiting}"

    def _places(self) -> Iterator[str]:
        """No limit on parallel work is exceeded."""
        if self._held() > (self.run.max_parallel or len(self.steps)):
            yield f"{self.run.id}: {self._held()} steps are in work, over {self.run.max_parallel}"
        for step in self.steps.values():
            limit = ((step.spec or {}).get("map") or {}).get("max_parallel")
            if limit is not None and self._held(step.id) > limit:
                yield f"{step.key}: {self._held(step.id)} of its items are in work, over {limit}"

    def _held(self, parent_id: str | None = None) -> int:
        """How many steps are in work, of the run or of the items of one step."""
        return sum(
            step.status in ("pending", "running") and step.task_id is not None
            for step in self.steps.values()
            if parent_id in (None, step.parent_id)
        )

    def _leftovers(self, open_steps: int) -> Iterator[str]:
        if open_steps:
            yield f"{self.run.id}: is {self.run.status} with {open_steps} unsettled steps"
        if self.run.due_at is not None:
            yield f"{self.run.id}: has ended and is due"
        for step in self.steps.values():
            if step.due_at is not None:
                yield f"{step.key}: is due after the run has ended"

    def _uncounted_failures(self) -> Iterator[str]:
        for step in self.steps.values():
            if step.status == "failed" and (step.spec or {}).get("on_failure") != "continue":
                yield f"{step.key}: failed, and the run completed"

    def _trigger(self, step: Row[Any]) -> Iterator[str]:
        """A step that has started had the right to: how its dependencies have ended cannot take it back."""
        waited_for = [up for up in self.upstream[step.id] if up.parent_id != step.id]
        ends = [up.status if _settled(up) else "open" for up in waited_for]
        # A failed step that a person tried again or settled has been failed, and settled, for those who started then.
        failed_once = any(up.id in self.ever_failed for up in waited_for)
        right = {
            "all_completed": all(end == "completed" for end in ends),
            "all_settled": "open" not in ends or failed_once,
            "any_failed": "failed" in ends or failed_once,
        }[(step.spec or {}).get("trigger", "all_completed")]
        if step.attempt and not right:
            yield f"{step.key}: has started, its dependencies are {ends}"
        if step.status == "skipped" and right and "when" not in step.spec and not failed_once:
            yield f"{step.key}: was skipped, its dependencies are {ends}"

    def _counters(self, step: Row[Any]) -> Iterator[str]:
        ends = Counter(up.status if _settled(up) else "open" for up in self.upstream[step.id])
        expected = (ends["open"], sum(ends.values()) - ends["open"] - ends["completed"], ends["failed"])
        stored = (step.open_deps, step.unmet_deps, step.failed_deps)
        if stored != expected:
            yield f"{step.key}: (open, unmet, failed) dependencies are {stored}, should be {expected}"

    def _forgotten(self) -> Iterator[str]:
        for step in self.steps.values():
            ends = [up.status if _settled(up) else "open" for up in self.upstream[step.id]]
            holds_early = step.spec.get("trigger") == "any_failed" and "failed" in ends
            waits_for_steps = "open" in ends and ("map" in step.spec if step.status != "pending" else not holds_early)
            waits_for_people = step.status == "waiting_approval" or step.paused_by is not None
            waits = waits_for_steps or waits_for_people or self._waits_for_a_place(step)
            if not (_settled(step) or waits or step.due_at is not None):
                yield f"{step.key}: is {step.status} and nothing will ever move it"

    def _waits_for_a_place(self, step: Row[Any]) -> bool:
        """Whether a limit on parallel work keeps a ready step from starting, and somebody is there to give up a place."""
        if step.status != "pending" or step.attempt:
            return False
        keeping = [
            other
            for other in self.steps.values()
            if not _settled(other) and (other.task_id is not None or other.retry_at is not None)
        ]
        siblings = [other for other in keeping if other.parent_id == step.parent_id]
        limit = (step.spec.get("each") or {}).get("max_parallel")
        full = self.run.max_parallel is not None and len(keeping) >= self.run.max_parallel
        return full or (limit is not None and len(siblings) >= limit)


def _settled(step: Row[Any]) -> bool:
    return step.status in DONE or (step.status == "failed" and step.retry_at is None)
