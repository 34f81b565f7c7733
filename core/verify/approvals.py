"""Checks the approval requests of a run: each waiting step has one, no other step has, and each is decided once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from interlock.core.model.states import StepState
from interlock.core.model.transitions import WORKFLOW_TABLE
from interlock.core.orchestration.approvals import APPROVED, CLOSED, REJECTED

from .findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Row

__all__ = ["request_findings"]

_ENDED: Final = frozenset(state.value for state in WORKFLOW_TABLE.terminal)
_DECISIONS: Final = frozenset({APPROVED, REJECTED, CLOSED, None})


def request_findings(
    run: Row[*tuple[Any, ...]],
    steps: Mapping[str, Row[*tuple[Any, ...]]],
    requests: Iterator[Row[*tuple[Any, ...]]],
) -> Iterator[Finding]:
    """Everything that is wrong with the requests of a run."""
    asking: Counter[str] = Counter()
    for row in requests:
        step = steps.get(row.step_id)
        entity = "workflow" if step is None else step.key
        for kind, text in _faults(run, step, row):
            yield Finding(kind, run.id, entity, text)
        if row.decision is None or (row.decision != CLOSED and not row.applied):
            asking[row.step_id] += 1
    if run.status in _ENDED:
        return  # what was decided and not applied before the end has gone with it
    for step in steps.values():
        waits = step.status == StepState.WAITING_APPROVAL.value
        if asking[step.id] != waits:
            text = f"is {step.status} with {asking[step.id]} open requests"
            yield Finding("requests", run.id, step.key, text)


def _faults(
    run: Row[*tuple[Any, ...]], step: Row[*tuple[Any, ...]] | None, row: Row[*tuple[Any, ...]]
) -> Iterator[tuple[str, str]]:
    if row.session_id != run.session_id:
        yield "foreign_session", f"a request is of session {row.session_id}, its run of {run.session_id}"
    if step is None:
        yield "requests", f"a request of step {row.step_id}, which is not of this run"
    if row.decision not in _DECISIONS:
        yield "requests", f"a request was decided as {row.decision!r}"
    if row.has_decided_at != (row.decision is not None):
        yield "requests", f"a request with decision {row.decision} and {'a' if row.has_decided_at else 'no'} time of it"
    if row.applied and row.decision in (None, CLOSED):
        yield "requests", f"a request has taken effect, and its decision is {row.decision}"
    if row.decision is None and run.status in _ENDED:
        yield "requests", f"a request is open although the workflow is {run.status}"
