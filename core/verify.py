"""The history checker: replays what was recorded through the tables, and compares it with what is there.

It reads and never writes, one run at a time, so its memory is bounded by the largest run and not by the database. What it finds
is a fact about the stored rows; an empty answer means that every invariant that rows can show holds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import func, select

from .counters import UNSETTLED
from .errors import UnknownState
from .models import ApprovalRequest, StateHistory, StepDependency, WorkflowRun, WorkflowStep, table_of_model
from .states import StepState, WorkflowState
from .transitions import TABLES, WORKFLOW_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row

    from .database import Database

__all__ = ["Finding", "Verification", "verify"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)
_history = table_of_model(StateHistory)
_dependencies = table_of_model(StepDependency)
_requests = table_of_model(ApprovalRequest)

_BATCH: Final = 500
_UNPLANNED: Final = (WorkflowState.DRAFT.value, WorkflowState.PLANNING.value)
_OPEN: Final = frozenset(state.value for state in UNSETTLED)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be.

    Attributes:
        kind: A word for programs, such as `seq_gap`.
        run_id: The run.
        entity: `workflow`, or the step's key.
        text: What was found, for people.
        seq: The history row where it shows, if there is one.
    """

    kind: str
    run_id: str
    entity: str
    text: str
    seq: int | None = None


@dataclass(slots=True)
class Verification:
    """What was looked at. It is complete once the findings have been read to their end.

    Attributes:
        runs: Runs checked.
        steps: Steps checked.
        rows: Rows of history replayed.
        without_history: Entities that have none: older rows, reported and not failed.
        findings: How many there were, by kind.
    """

    runs: int = 0
    steps: int = 0
    rows: int = 0
    without_history: int = 0
    findings: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify(database: Database, verification: Verification, run_id: str | None = None) -> Iterator[Finding]:
    """Check one run, or every run of the database.

    Args:
        database: What to check.
        verification: Counts what was looked at.
        run_id: The run; None for all.
    """
    with database.reading() as connection:
        for batch in _batches(connection, run_id):
            for run in batch:
                for finding in _RunCheck(connection, run, verification).findings():
                    verification.findings[finding.kind] += 1
                    yield finding
        if run_id is None:
            for finding in _orphans(connection):
                verification.findings[finding.kind] += 1
                yield finding


def _batches(connection: Connection, run_id: str | None) -> Iterator[list[Row[*tuple[Any, ...]]]]:
    query = select(_runs).order_by(_runs.c.id).limit(_BATCH)
    if run_id is not None:
        yield list(connection.execute(query.where(_runs.c.id == run_id)).all())
        return
    batch = list(connection.execute(query).all())
    while batch:
        yield batch
        batch = list(connection.execute(query.where(_runs.c.id > batch[-1].id)).all())


def _orphans(connection: Connection) -> Iterator[Finding]:
    """History of runs that are gone: allowed only while an archive is being made, so it is worth a look."""
    query = (
        select(_history.c.workflow_id, func.count())
        .where(_history.c.workflow_id.not_in(select(_runs.c.id)))
        .group_by(_history.c.workflow_id)
    )
    for workflow_id, count in connection.execute(query):
        yield Finding(
            "orphaned_history", workflow_id, "workflow", f"{count} rows of history of a run that does not exist"
        )


class _RunCheck:
    """One run, replayed."""

    def __init__(self, connection: Connection, run: Row[*tuple[Any, ...]], verification: Verification) -> None:
        self._connection = connection
        self._run = run
        self._verification = verification
        self._state: dict[str, str] = {}

    def findings(self) -> Iterator[Finding]:
        query = select(_steps).where(_steps.c.run_id == self._run.id).order_by(_steps.c.position)
        steps = {row.id: row for row in self._connection.execute(query)}
        self._verification.runs += 1
        self._verification.steps += len(steps)
        yield from self._replay(steps)
        yield from self._states(steps)
        yield from self._sessions(steps)
        yield from self._ending(steps)
        if self._run.status not in _UNPLANNED:
            yield from self._counters(steps)
            yield from self._requests(steps)
        if self._run.status == WorkflowState.EXECUTING.value:
            yield from self._forgotten(steps)

    def _finding(self, kind: str, text: str, entity: str = "workflow", seq: int | None = None) -> Finding:
        return Finding(kind, self._run.id, entity, text, seq)

    # --- the history -------------------------------------------------------------------------------------------------

    def _replay(self, steps: dict[str, Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        expected = 1
        rows = self._connection.execution_options(yield_per=1000).execute(
            select(_history).where(_history.c.workflow_id == self._run.id).order_by(_history.c.seq),
        )
        for row in rows:
            self._verification.rows += 1
            if row.seq != expected:
                yield self._finding("seq_gap", f"seq {row.seq} follows {expected - 1}", seq=row.seq)
            expected = row.seq + 1
            yield from self._edge(row, steps)
        if expected > 1 and self._run.seq != expected - 1:
            text = f"the run's counter is at {self._run.seq}, its history ends at {expected - 1}"
            yield self._finding("seq_counter", text)

    def _edge(self, row: Row[*tuple[Any, ...]], steps: dict[str, Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        name = "workflow" if row.entity_type == WORKFLOW_TABLE.entity_type else row.step_key or row.entity_id
        table: Any = TABLES.get(row.entity_type)
        known = row.entity_id == self._run.id if table is WORKFLOW_TABLE else row.entity_id in steps
        if table is None or not known:
            yield self._finding(
                "unknown_entity", f"a row of {row.entity_type} {row.entity_id}, which is not there", name, row.seq
            )
            return
        before = self._state.get(row.entity_id)
        if before is not None and row.from_state != before:
            text = f"{row.from_state} → {row.to_state} follows a row that ended in {before}"
            yield self._finding("broken_chain", text, name, row.seq)
        try:
            target = table.parse(row.to_state)
            source = None if row.from_state is None else table.parse(row.from_state)
        except UnknownState as error:
            yield self._finding("unknown_state", str(error), name, row.seq)
            return
        if source is not None and not table.allows(source, target):
            yield self._finding("illegal_edge", f"{source} → {target} is not in the table", name, row.seq)
        elif source is None and before is not None:
            yield self._finding("illegal_edge", f"a second first row, to {target}", name, row.seq)
        yield from self._while_executing(row, name, target)
        self._state[row.entity_id] = row.to_state

    def _while_executing(self, row: Row[*tuple[Any, ...]], name: str, target: str) -> Iterator[Finding]:
        run_state = self._state.get(self._run.id)
        if run_state is not None and WORKFLOW_TABLE.is_terminal(WORKFLOW_TABLE.parse(run_state)):
            yield self._finding("after_the_end", f"moved after the workflow was {run_state}", name, row.seq)
        elif (
            target == StepState.RUNNING and row.from_state == StepState.PENDING and run_state != WorkflowState.EXECUTING
        ):
            yield self._finding(
                "started_while_not_executing", f"started while the workflow was {run_state}", name, row.seq
            )

    # --- the rows as they are ------------------------------------------------------------------------------------------

    def _states(self, steps: dict[str, Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        entities = [(self._run.id, "workflow", self._run.status)]
        entities += [(row.id, row.key, row.status) for row in steps.values()]
        for entity_id, name, status in entities:
            last = self._state.get(entity_id)
            if last is None:
                self._verification.without_history += 1
            elif last != status:
                yield self._finding("status_mismatch", f"is {status}, its history ends in {last}", name)

    def _sessions(self, steps: dict[str, Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        session_id = self._run.session_id
        for row in steps.values():
            if row.session_id != session_id:
                yield self._finding(
                    "foreign_session", f"is of session {row.session_id}, its run of {session_id}", row.key
                )
        for table, column in ((_history, _history.c.workflow_id), (_requests, _requests.c.run_id)):
            query = select(func.count()).where(column == self._run.id, table.c.session_id != session_id)
            if count := self._connection.scalar(query):
                yield self._finding("foreign_session", f"{count} rows of {table.name} are of another session")

    def _ending(self, steps: dict[str, Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        status = self._run.status
        if status not in WORKFLOW_TABLE.terminal:
            return
        for row in steps.values():
            if row.status in _OPEN or row.retry_at is not None:
                yield self._finding("unsettled", f"is {row.status} although the workflow is {status}", row.key)
            elif status == WorkflowState.COMPLETED.value and _counts_as_failed(row):
                yield self._finding("uncounted_failure", "has failed although the workflow is completed", row.key)

    def _counters(self, steps: dict[str, Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        terminal = self._run.status in WORKFLOW_TABLE.terminal
        still_open = 0 if terminal else sum(1 for row in steps.values() if _is_open(row))
        if self._run.open_steps != still_open:
            yield self._finding(
                "open_steps", f"open_steps is {self._run.open_steps}, {still_open} steps are not settled"
            )
        waiting = sum(1 for row in steps.values() if row.status == StepState.WAITING_APPROVAL.value)
        if self._run.waiting_steps != waiting:
            yield self._finding("waiting_steps", f"waiting_steps is {self._run.waiting_steps}, {waiting} steps wait")
        if terminal or self._run.status == WorkflowState.PAUSED.value:
            return  # while paused, what settles is counted at resume
        open_deps: Counter[str] = Counter()
        edges = select(_dependencies.c.step_id, _dependencies.c.upstream_id).where(
            _dependencies.c.run_id == self._run.id
        )
        for step_id, upstream_id in self._connection.execute(edges):
            upstream = steps.get(upstream_id)
            if upstream is None or step_id not in steps:
                yield self._finding(
                    "foreign_dependency", f"{step_id} waits for {upstream_id}, which is not of this run"
                )
            elif _is_open(upstream):
                open_deps[step_id] += 1
        for row in steps.values():
            if row.status == StepState.PENDING.value and row.attempt == 0 and row.open_deps != open_deps[row.id]:
                text = f"open_deps is {row.open_deps}, {open_deps[row.id]} dependencies are open"
                yield self._finding("open_deps", text, row.key)

    def _requests(self, steps: dict[str, Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        query = select(_requests.c.step_id, _requests.c.applied, _requests.c.decision).where(
            _requests.c.run_id == self._run.id,
        )
        pending: Counter[str] = Counter(
            row.step_id
            for row in self._connection.execute(query)
            if row.decision is None or (row.decision != "closed" and not row.applied)
        )
        for row in steps.values():
            waits = row.status == StepState.WAITING_APPROVAL.value
            if waits and pending[row.id] != 1:
                yield self._finding("requests", f"waits for an approval with {pending[row.id]} open requests", row.key)
            elif not waits and pending[row.id]:
                yield self._finding("requests", f"is {row.status} with an open request", row.key)

    def _forgotten(self, steps: dict[str, Row[*tuple[Any, ...]]]) -> Iterator[Finding]:
        """Every unsettled step has a live lease, a timer, a dependency, or a person to wait for."""
        limited = self._run.max_parallel is not None
        for row in steps.values():
            if not _is_open(row) or row.due_at is not None:
                continue
            by_limit = limited or ((row.spec or {}).get("each") or {}).get("max_parallel") is not None
            excused = (
                (row.status == StepState.PENDING.value and (row.open_deps > 0 or by_limit))
                or (row.status == StepState.RUNNING.value and row.task_id is None and row.open_deps > 0)
                or row.status == StepState.WAITING_APPROVAL.value
                or (row.status == StepState.PAUSED.value and row.paused_by is not None)
            )
            if not excused:
                text = f"is {row.status} with no lease, timer, dependency or person to wait for"
                yield self._finding("forgotten", text, row.key)


def _counts_as_failed(row: Row[*tuple[Any, ...]]) -> bool:
    return bool(row.status == StepState.FAILED.value and (row.spec or {}).get("on_failure", "fail") != "continue")


def _is_open(row: Row[*tuple[Any, ...]]) -> bool:
    # By value: what is checked may hold a state that does not exist.
    return bool(row.status in _OPEN or (row.status == StepState.FAILED.value and row.retry_at is not None))
