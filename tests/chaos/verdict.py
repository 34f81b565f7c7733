"""From what was recorded to the figures of a summary."""

from __future__ import annotations

from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

from .recovery import recoveries
from .report import Summary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .checks import Evidence, Record
    from .injection import Injector

__all__ = ["summarize", "write_histories"]


def summarize(record: Record, evidence: Evidence, injector: Injector, *, duration_s: float, **given: Any) -> Summary:
    """Count. The roll calls at the end, which met no fault, are left out.

    Args:
        record: What the database holds.
        evidence: What everybody else knows.
        injector: What was injected.
        duration_s: From the first enqueue to the end of the last workflow.
        **given: The other fields of the summary, as they are.
    """
    found = recoveries(injector.injected, record.history.values(), evidence.ledger)
    load = {run_id: row for run_id, row in record.runs.items() if row.idempotency_key in evidence.plans}
    steps = [step for run_id in load for step in record.steps[run_id]]
    bodies = {step.id: Counter(entry.what for entry in evidence.ledger.get(step.id, ())) for step in steps}
    return Summary(
        faults=Counter(str(each.fault.kind) for each in injector.injected),
        recovery_s={str(kind): round(max(values), 1) for kind, values in found.seconds.items()},
        typical_s={str(kind): round(median(values), 1) for kind, values in found.seconds.items()},
        unexplained=found.unexplained,
        workflows=len(load),
        statuses=Counter(row.status for row in load.values()),
        steps=sum(step.status == "completed" for step in steps),
        bodies=sum(counts["begin"] for counts in bodies.values()),
        again=sum(max(counts["begin"] - 1, 0) for counts in bodies.values()),
        refused=sum(counts["refused"] for counts in bodies.values()),
        changes=sum(map(len, evidence.received.values())),
        duration_s=round(duration_s, 1),
        skipped=len(injector.skipped),
        oddities=injector.oddities,
        **given,
    )


def write_histories(record: Record, path: Path) -> None:
    """Keep the histories of all runs, for whoever looks into a violation."""
    rows: Sequence[Any] = [row for rows in record.history.values() for row in rows]
    path.write_text("".join(f"{row}\n" for row in rows))
