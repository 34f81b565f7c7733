"""Claims and completes plain steps on PostgreSQL with one prepared statement each (`fast_path_sql`).

What it grants or records is, row for row, what `UnitOfWork` and `Flow` (the slow path) would have written; a case that is not plain
(an approval, a map, a condition, a limit, a pause) finds no row, changes nothing, and goes by the slow path.
`tests/core/attempts/test_fast_path.py` compares the two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from interlock.core.events import STATE_CHANGING, Dispatch, Effects, StateChange
from interlock.core.fault_points import fault_point
from interlock.core.json_values import compact_json
from interlock.core.machine.attempt_columns import first_attempt_id
from interlock.core.machine.cause import ENGINE, Cause
from interlock.core.machine.guard_rules import rules_of
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE
from interlock.core.orchestration.run_end import EVERY_STEP_IS_SETTLED

from .fast_path_sql import CLAIM, COMPLETE, COMPLETE_AND_CLAIM, END

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interlock.core.database.database import Database
    from interlock.core.settings import Settings

    from .claims import AttemptRef
    from .run_through import RunThroughOffer

__all__ = ["Completion", "FastPath", "Verdict"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_CLAIMED_AT: Final = 13  # column of an answer to `COMPLETE_AND_CLAIM`: where what it says of the claim begins


class Verdict(Enum):
    """The answer of the fast path where it has changed nothing."""

    NOT_PLAIN = "take the slow path"


_NotPlain = Literal[Verdict.NOT_PLAIN]


@dataclass(frozen=True, slots=True)
class Completion:
    """What a completion has caused.

    Attributes:
        effects: To deliver.
        claimed: The step that it made ready and claimed for the same process, by that process's offer.
    """

    effects: Effects
    claimed: Dispatch | None = None


class FastPath:
    """The fast path into one database. Everything is `NOT_PLAIN` on SQLite, and where a listener or guard must be asked."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._lease_s = f"{settings.lease_s}".encode()
        self._overdue_s = f"{settings.cancel_grace_s + settings.lease_s}".encode()
        self._redispatch_s = f"{settings.redispatch_s}".encode()

    def claim(self, ref: AttemptRef, worker: str) -> Effects | _NotPlain:
        """Claim a step's first attempt; later ones are `running` since they were made, so the statement never finds them.

        Raises:
            DBAPIError: The connection was lost, and whether the claim is stored is not known.
        """
        is_first = ref.task_id == first_attempt_id(ref.step_id)
        if ref.token is None or not is_first or not self._is_open() or self._asks_about_starts():
            return Verdict.NOT_PLAIN
        fault_point("claim.commit", ref.task_id)
        parameters = (*_identity(ref), worker.encode(), self._lease_s, self._overdue_s)
        rows = self._database.run_prepared(CLAIM, parameters, "claim", ref.task_id)
        if not rows:
            return Verdict.NOT_PLAIN
        fault_point("claim.committed", ref.task_id)
        edge = StepState.PENDING, StepState.RUNNING
        return Effects(changes=[_change((ref.run_id, ref.step_id), rows[0], edge, Cause(worker, "claimed"))])

    def complete(self, ref: AttemptRef, result: Any, offer: RunThroughOffer | None = None) -> Completion | _NotPlain:
        """Record a result, and begin what it makes ready or end the run.

        Args:
            ref: The attempt that has ended.
            result: What it returned.
            offer: Of its process, to run the step that becomes ready. Not taken up where a guard is to be asked about starts.

        Raises:
            DBAPIError: The connection was lost, and whether the result is stored is not known.
        """
        if ref.token is None or not self._is_open():
            return Verdict.NOT_PLAIN
        fault_point("complete.commit", ref.task_id)
        document = compact_json(result).encode()
        statement, parameters = COMPLETE, [*_identity(ref), document, self._redispatch_s]
        if self._asks_about_starts():
            offer = None
        if offer is not None:
            fault_point("runthrough.commit", ref.task_id)
            statement = COMPLETE_AND_CLAIM
            parameters += [offer.carrier_id.encode(), _array_of(offer.kinds), offer.token.encode(), self._lease_s]
        rows = self._database.run_prepared(statement, parameters, "complete", ref.task_id)
        if not rows:
            return self._end_run(ref, document)
        fault_point("complete.committed", ref.task_id)
        return _completion(ref, rows, offer)

    def _end_run(self, ref: AttemptRef, document: bytes) -> Completion | _NotPlain:
        """Record the result of a run's last step, with which the run completes."""
        rows = self._database.run_prepared(END, (*_identity(ref), document), "complete", ref.task_id)
        if not rows:
            return Verdict.NOT_PLAIN
        fault_point("complete.committed", ref.task_id)
        of_step, of_run = rows
        ids = ref.run_id, ref.step_id
        run = _change(
            ids, of_run, (WorkflowState.EXECUTING, WorkflowState.COMPLETED), Cause(ENGINE, EVERY_STEP_IS_SETTLED)
        )
        run = replace(run, entity_type=WORKFLOW_TABLE.entity_type, entity_id=ref.run_id, step_key=None, attempt=None)
        return Completion(Effects(changes=[_completed(ref, of_step), run]))

    def _is_open(self) -> bool:
        return self._database.sends_prepared and not self._database.emitter.listens(STATE_CHANGING)

    def _asks_about_starts(self) -> bool:
        return bool(rules_of(self._database.engine).on_starts)


def _completion(ref: AttemptRef, rows: list[list[bytes | None]], offer: RunThroughOffer | None) -> Completion:
    """What a completion's rows say, one for each step that it made ready, or one without."""
    changes = [_completed(ref, rows[0])]
    dispatches, claimed = [], None
    for row in rows:
        if row[7] is None:
            continue
        dispatch = _dispatch(ref, changes[0].session_id, row)
        # Besides a claimed one others may be due: a predecessor of theirs has completed while the statement waited for the
        # run, and the statement saw only one that would be ready.
        if offer is None or row[_CLAIMED_AT] is None:
            dispatches.append(dispatch)
            continue
        fault_point("runthrough.committed", dispatch.task_id)
        claimed = dispatch
        cause = Cause(changes[0].transitioned_by, "claimed", {"carrier": offer.carrier_id})
        columns = (*row[_CLAIMED_AT:], row[3], row[8], str(dispatch.attempt).encode())
        edge = StepState.PENDING, StepState.RUNNING
        changes.append(_change((ref.run_id, dispatch.step_id), columns, edge, cause))
    return Completion(Effects(changes=changes, dispatches=dispatches), claimed)


def _completed(ref: AttemptRef, row: Sequence[bytes | None]) -> StateChange:
    cause = Cause(_text(row[6]), "completed", {"task_id": ref.task_id})
    return _change((ref.run_id, ref.step_id), row, (StepState.RUNNING, StepState.COMPLETED), cause)


@lru_cache(maxsize=100)
def _array_of(kinds: frozenset[str]) -> bytes:
    """Texts as PostgreSQL reads an array; made once, since a process offers the same at every step."""
    quoted = (kind.replace("\\", "\\\\").replace('"', '\\"') for kind in sorted(kinds))
    return ("{" + ",".join(f'"{kind}"' for kind in quoted) + "}").encode()


def _identity(ref: AttemptRef) -> tuple[bytes, bytes, bytes, bytes]:
    return ref.run_id.encode(), ref.step_id.encode(), ref.task_id.encode(), (ref.token or "").encode()


def _change(ids: tuple[str, str], row: Sequence[bytes | None], edge: tuple[str, str], cause: Cause) -> StateChange:
    """The change that a history row records: its columns are id, seq, time, and the session, key and attempt of the step."""
    run_id, step_id = ids
    source, target = edge
    return StateChange(
        entity_type=STEP_TABLE.entity_type,
        entity_id=step_id,
        session_id=_text(row[3]),
        workflow_id=run_id,
        seq=_number(row[1]),
        from_state=str(source),
        to_state=str(target),
        reason=cause.reason,
        transitioned_by=cause.actor,
        step_key=_text(row[4]),
        attempt=_number(row[5]),
        created_at=_EPOCH + timedelta(microseconds=_number(row[2])),
        meta=cause.meta,
        history_id=_number(row[0]),
    )


def _dispatch(ref: AttemptRef, session_id: str, row: Sequence[bytes | None]) -> Dispatch:
    return Dispatch(
        run_id=ref.run_id,
        session_id=session_id,
        step_id=_text(row[7]),
        key=_text(row[8]),
        task=_text(row[9]),
        task_id=_text(row[10]),
        attempt=1,
        celery_retries=_number(row[11]),
        spec=json.loads((row[12] or b"null").decode()) or {},  # of bytes it would look for their encoding first
    )


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(value)
