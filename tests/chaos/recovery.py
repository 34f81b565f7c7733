"""How long the deployment took to recover from each fault, read from history and ledger afterwards. Pure.

Only what is certain is counted. A lost step is put down to a fault if that fault hit the process in which its body ran, after the
body had begun, and no other fault did: the ledger knows the process. A step that was lost otherwise (the database was away for
longer than its lease, the process died before the body began, two faults came one upon the other) is nobody's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .schedule import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Row

    from .injection import Injected
    from .ledger import Entry

__all__ = ["Recoveries", "recoveries"]

_LOST = ("worker lost", "worker shutdown")


@dataclass(frozen=True, slots=True)
class Recoveries:
    """What was read.

    Attributes:
        seconds: By kind of fault. Of a worker or a pool process: from the fault until a step that it broke is running again, for
            each such step. Of an engine: until there is a new one. Of a server: from its return until the next step completes.
        unexplained: Steps that were lost, and went on, by nothing that is certain.
    """

    seconds: Mapping[Kind, list[float]]
    unexplained: int


@dataclass(frozen=True, slots=True)
class _Loss:
    step_id: str
    attempt: int
    at: float
    again_at: float


def recoveries(
    injected: Sequence[Injected],
    history: Iterable[Sequence[Row[Any]]],
    ledger: Mapping[str, Sequence[Entry]],
) -> Recoveries:
    """Read them.

    Args:
        injected: The faults.
        history: Of each run.
        ledger: What bodies did, by step.
    """
    found: dict[Kind, list[float]] = defaultdict(list)
    unexplained = 0
    rows_of_runs = list(history)
    for rows in rows_of_runs:
        for loss in _losses(rows):
            cause = _cause(injected, loss, ledger.get(loss.step_id, ()))
            if cause is None:
                unexplained += 1
            else:
                found[cause.fault.kind].append(loss.again_at - cause.at)
    completed = sorted(
        row.created_at.timestamp()
        for rows in rows_of_runs
        for row in rows
        if row.step_key and row.to_state == "completed"
    )
    for each in injected:
        if each.back_at is None:
            continue
        if each.fault.kind is Kind.ENGINE:
            found[each.fault.kind].append(each.back_at - each.at)
        elif each.node is None:
            found[each.fault.kind] += [at - each.back_at for at in completed if at > each.back_at][:1]
    return Recoveries(found, unexplained)


def _cause(injected: Sequence[Injected], loss: _Loss, entries: Sequence[Entry]) -> Injected | None:
    """The one fault that hit the process of the lost attempt's body while that ran; None where there is none, or several."""
    bodies = {(entry.pid, entry.began_at) for entry in entries if entry.attempt == loss.attempt}
    hits = [
        each for each in injected for pid, began_at in bodies if pid in each.pids and began_at <= each.at <= loss.at
    ]
    return hits[0] if len(hits) == 1 else None


def _losses(rows: Sequence[Row[Any]]) -> Iterator[_Loss]:
    """Attempts whose worker was lost, and when their step went on."""
    lost: dict[str, tuple[int, float]] = {}
    for row in rows:
        at = row.created_at.timestamp()
        if row.to_state == "failed" and row.transition_reason in _LOST:
            lost[row.entity_id] = (row.attempt, at)
        elif row.to_state == "running" and row.entity_id in lost:
            yield _Loss(row.entity_id, *lost.pop(row.entity_id), at)
