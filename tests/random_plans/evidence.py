"""From the database and the ledger to what the oracle is told of each run; and what the other checkers find, by run."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from interlock.core.verify import Verification, verify
from tests.chaos import ledger
from tests.chaos.checks import missed_changes
from tests.core.checker import faults as checker_faults

from .facts import Case, Moment, StepFact, bodies_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from sqlalchemy import Row

    from interlock.core import Database
    from interlock.core.events import StateChange
    from tests.chaos.checks import Record

    from .watch import LiveRun

__all__ = ["NO_RUN", "case_of", "other_findings"]

NO_RUN = ""
"""What is found that belongs to no run."""

_STOPS = ("paused", "failed", "cancelled")
_COMPLAINT = re.compile(
    r"ERROR/[^]]+\] ((?:could not |cannot send |command \S+ cannot |the sweep of |after-commit handler |step \S+ came without |"
    r"history row |listener |the control queue's ).*)"
)
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def case_of(run: LiveRun, record: Record, folder: Path) -> Case:
    """Everything that is known of a run."""
    rows = record.history.get(run.run_id, ())
    steps = record.steps.get(run.run_id, ())
    ends = [row for row in rows if row.step_key is None and row.to_state in ("completed", "failed", "cancelled")]
    entries = [entry for found in ledger.read(folder / run.family).values() for entry in found]
    return Case(
        plan=run.plan,
        run_id=run.run_id,
        status=record.runs[run.run_id].status,
        ended_at=ends[-1].created_at.timestamp() if ends else None,
        steps={row.key: StepFact(row.key, row.status, row.attempt, row.result, row.losses) for row in steps},
        bodies=bodies_of(entries, run.run_id),
        said=run.said,
        moments=[_moment(row) for row in rows if row.to_state in _STOPS and _stops(row)],
        forked_from=None if run.forked_from is None else case_of(run.forked_from, record, folder),
    )


def _stops(row: Row[Any]) -> bool:
    """Whether bodies are stopped by the move: a step that fails has none any more."""
    return row.step_key is None or row.to_state != "failed"


def _moment(row: Row[Any]) -> Moment:
    return Moment(row.created_at.timestamp(), row.step_key, row.to_state, row.transitioned_by)


def other_findings(
    database: Database, record: Record, received: Mapping[str, list[StateChange]], logs: Iterable[str]
) -> dict[str, list[str]]:
    """What `verify`, the independent checker, the subscriber and the workers' logs say is wrong, by run."""
    runs = {step.id: run_id for run_id, steps in record.steps.items() for step in steps} | {
        each: each for each in record.runs
    }
    found: dict[str, list[str]] = defaultdict(list)
    for where, text in (*_texts(database, record, received), *_by_id("a worker logged", _complaints(logs))):
        found[runs.get(where, NO_RUN)].append(text)
    return found


def _complaints(logs: Iterable[str]) -> Iterator[str]:
    """What Interlock itself logged as an error: nothing is broken here that could be its reason."""
    for log in logs:
        yield from _COMPLAINT.findall(log)


def _texts(database: Database, record: Record, received: Mapping[str, list[StateChange]]) -> Iterator[tuple[str, str]]:
    for finding in verify(database, Verification()):
        yield str(finding.run_id), f"verify: {finding.entity}: {finding.text}"
    yield from _by_id("checker", checker_faults(database))
    yield from _by_id("subscriber", missed_changes(record, received))


def _by_id(who: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        named = _ID.search(text)
        yield named.group() if named else NO_RUN, f"{who}: {text}"
