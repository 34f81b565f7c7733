"""What must hold when everything has ended: whatever is found here is a violation of a promise. It only reads."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from interlock.core.database.tables import StateHistory, WorkflowRun, WorkflowStep
from interlock.core.verify import Verification, verify
from tests.core.checker import faults as checker_faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Row

    from interlock.core import Database
    from interlock.core.events import StateChange

    from .ledger import Entry
    from .people import Operator
    from .plans import Plan

__all__ = ["Evidence", "Record", "missed_changes", "read_record", "violations"]

_MAX_OF_A_KIND = 10


@dataclass(frozen=True, slots=True)
class Record:
    """What the database holds.

    Attributes:
        runs: Rows of runs by id.
        steps: Rows of steps by run.
        history: Rows of history by run, in order of `seq`.
    """

    runs: Mapping[str, Row[Any]]
    steps: Mapping[str, Sequence[Row[Any]]]
    history: Mapping[str, Sequence[Row[Any]]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What everybody else knows.

    Attributes:
        plans: The load by the name of its workflows.
        roll_calls: Workflows that look for every worker at the end, by the same.
        run_ids: What the producer was told, by the same.
        ledger: What bodies did, by idempotency key.
        received: What the subscribers received, by run.
        operators: What the operators were told.
    """

    plans: Mapping[str, Plan]
    roll_calls: Mapping[str, Plan]
    run_ids: Mapping[str, str]
    ledger: Mapping[str, Sequence[Entry]]
    received: Mapping[str, Sequence[StateChange]]
    operators: Sequence[Operator]


def read_record(database: Database) -> Record:
    """Read everything."""
    run, step, history = WorkflowRun.__table__, WorkflowStep.__table__, StateHistory.__table__
    with database.reading() as connection:
        runs = {row.id: row for row in connection.execute(select(run))}
        steps = _by(connection.execute(select(step).order_by(step.c.position)), "run_id")
        rows = _by(connection.execute(select(history).order_by(history.c.seq)), "workflow_id")
    return Record(runs, steps, rows)


def _by(rows: Any, column: str) -> Mapping[str, list[Row[Any]]]:
    grouped: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        grouped[getattr(row, column)].append(row)
    return grouped


def violations(database: Database, record: Record, evidence: Evidence) -> Iterator[str]:
    """Everything that must not be, in words; of each kind the first few."""
    checks = {
        "runs": _runs(record, evidence),
        "verify": (
            f"{finding.run_id} {finding.entity}: {finding.text}" for finding in verify(database, Verification())
        ),
        "checker": iter(checker_faults(database)),
        "results": _results(record, evidence),
        "bodies": _bodies(record, evidence),
        "subscribers": missed_changes(record, evidence.received),
        "commands": _commands(record, evidence),
    }
    for name, found in checks.items():
        texts = list(found)
        yield from (f"{name}: {text}" for text in texts[:_MAX_OF_A_KIND])
        if len(texts) > _MAX_OF_A_KIND:
            yield f"{name}: and {len(texts) - _MAX_OF_A_KIND} more"


def _runs(record: Record, evidence: Evidence) -> Iterator[str]:
    """What was promised to the producer is there, once, and has ended as it should."""
    cancelled = {run_id for operator in evidence.operators for run_id in operator.cancelled}
    stored = Counter(row.idempotency_key for row in record.runs.values())
    for name, run_id in evidence.run_ids.items():
        row = record.runs.get(run_id)
        if row is None:
            yield f"{name}: run {run_id} was promised and is not there"
            continue
        if stored[name] != 1:
            yield f"{name}: is there {stored[name]} times"
        if row.status not in ("completed", "cancelled") or (row.status == "cancelled" and run_id not in cancelled):
            yield f"{name}: run {run_id} is {row.status}: {row.error}"
    for name in stored.keys() - evidence.run_ids.keys():
        yield f"{name}: nobody was told of it"


def _results(record: Record, evidence: Evidence) -> Iterator[str]:
    """The recorded result of each step came from one run of its body, and is the sum that its plan says."""
    plans = {**evidence.plans, **evidence.roll_calls}
    for run_id, steps in record.steps.items():
        plan = plans.get(record.runs[run_id].idempotency_key)
        for step in steps if plan is not None else ():
            where = f"{plan.name} {step.key} ({step.id})"
            expected = plan.expected.get(step.key)
            done = [entry for entry in evidence.ledger.get(step.id, ()) if entry.what == "effect"]
            if expected is None or step.status != "completed":
                if expected is None and done:
                    yield f"{where}: has no body, and {len(done)} effects"
                continue
            if not done:
                yield f"{where}: completed without an effect"
            elif step.result["value"] != expected:
                yield f"{where}: is {step.result['value']}, should be {expected}"
            elif [entry.value for entry in done if entry.body == step.result["body"]] != [expected]:
                yield f"{where}: its result {step.result} is that of no body in the ledger"


def _bodies(record: Record, evidence: Evidence) -> Iterator[str]:
    """A body ran once per attempt, and no more often than its step was moved to running."""
    starts = Counter(
        row.entity_id for rows in record.history.values() for row in rows if row.step_key and row.to_state == "running"
    )
    known = {step.id for steps in record.steps.values() for step in steps}
    for key, entries in evidence.ledger.items():
        begun = Counter(entry.attempt for entry in entries if entry.what == "begin")
        if key not in known:
            yield f"{key}: a body ran for a step of run {entries[0].run_id} that is not there"
        elif max(begun.values()) > 1:
            yield f"{key}: bodies per attempt: {dict(begun)}"
        elif begun.total() > starts[key]:
            yield f"{key}: {begun.total()} bodies, {starts[key]} moves to running"


def missed_changes(record: Record, received: Mapping[str, Sequence[StateChange]]) -> Iterator[str]:
    """What a subscriber has not received of each run, or more than once, or out of order."""
    for run_id, rows in record.history.items():
        stored = [(row.seq, row.entity_id, row.from_state, row.to_state) for row in rows]
        got = [(c.seq, c.entity_id, c.from_state, c.to_state) for c in received.get(run_id, ())]
        if got != stored:
            missing = [row[0] for row in stored if row not in got]
            twice = [seq for seq, count in Counter(row[0] for row in got).items() if count > 1]
            yield f"{run_id}: {len(got)} of {len(stored)} changes received; missing {missing}, twice {twice}"


def _commands(record: Record, evidence: Evidence) -> Iterator[str]:
    """What an operator was told is done was done once; nothing was done that nobody asked for."""
    for operator in evidence.operators:
        yield from operator.faults
    asked = {
        "paused": Counter(run_id for operator in evidence.operators for run_id in operator.paused),
        "cancelled": Counter(run_id for operator in evidence.operators for run_id in operator.cancelled),
    }
    for run_id, rows in record.history.items():
        for state, by_run in asked.items():
            moves = sum(row.step_key is None and row.to_state == state for row in rows)
            if moves != by_run[run_id]:
                yield f"{run_id}: was {state} {moves} times, asked for {by_run[run_id]} times"
    for run_id, step in {pair for operator in evidence.operators for pair in operator.approved}:
        waits = sum(row.step_key == step and row.from_state == "waiting_approval" for row in record.history[run_id])
        if waits != 1:
            yield f"{run_id} {step}: was approved, and went on {waits} times"
