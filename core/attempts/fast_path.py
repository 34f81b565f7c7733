"""Claims and completes plain steps on PostgreSQL with one prepared statement each (`fast_path_sql`).

What it grants or records is, row for row, what `UnitOfWork` and `Flow` (the slow path) would have written; a case that is not plain
(an approval, a map, a condition, a limit, a pause) finds no row, changes nothing, and goes by the slow path.
`tests/core/attempts/test_fast_path.py` compares the two.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from interlock.core.events import STATE_CHANGING, Dispatch, Effects, StateChange
from interlock.core.fault_points import fault_point
from interlock.core.machine.attempt_columns import first_attempt_id
from interlock.core.machine.cause import ENGINE, Cause
from interlock.core.machine.guard_rules import rules_of
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE
from interlock.core.orchestration.run_end import EVERY_STEP_IS_SETTLED

from .fast_path_sql import CLAIM, COMPLETE, COMPLETE_AND_CLAIM, END

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from interlock.core.database.database import Database
    from interlock.core.settings import Settings

    from .claims import AttemptRef
    from .run_through import RunThroughOffer

__all__ = ["Completed", "HotPath"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_CLAIMED_AT: Final = 13  # column of an answer to an offer: where what it says of the claim begins


@dataclass(frozen=True, slots=True)
class Completed:
    """What a completion has caused.

    Attributes:
        effects: To deliver.
        taken: The step that it made ready and that its process has claimed with it.
    """

    effects: Effects
    taken: Dispatch | None = None


class HotPath:
    """The short way into one database; it declines where it is not PostgreSQL, or where somebody has to be asked first."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._lease_s = f"{settings.lease_s}".encode()
        self._overdue_s = f"{settings.cancel_grace_s + settings.lease_s}".encode()
        self._redispatch_s = f"{settings.redispatch_s}".encode()

    def send_claim(self, ref: AttemptRef, worker: str) -> Callable[[], StateChange | None] | None:
        """Ask for a step's first attempt.

        Returns:
            What waits for the answer, None where it is not to be had this way and nothing was written; None where that is known.

        Raises:
            DBAPIError: The connection was lost, and whether the claim is stored is not known. What is returned raises it too.
        """
        is_first = ref.task_id == first_attempt_id(
            ref.step_id
        )  # a later one runs since it was made, and is never found here
        if ref.token is None or not is_first or not self._is_open() or rules_of(self._database.engine).on_starts:
            return None
        fault_point("claim.commit", ref.task_id)
        parameters = (*_identity(ref), worker.encode(), self._lease_s, self._overdue_s)
        answer = self._database.send_prepared("claim", CLAIM, parameters)

        def claimed() -> StateChange | None:
            try:
                fault_point("claim.sent", ref.task_id)
            finally:
                rows = answer()
            if not rows:
                return None
            fault_point("claim.committed", ref.task_id)
            cause = Cause(worker, "claimed")
            return _change((ref.run_id, ref.step_id), rows[0], StepState.PENDING, StepState.RUNNING, cause)

        return claimed

    def send_completion(
        self, ref: AttemptRef, result: Any, onward: RunThroughOffer | None = None
    ) -> Callable[[], Completed | None] | None:
        """Have a result recorded, and what it makes ready started or the run ended.

        Args:
            ref: The attempt that has ended.
            result: What it returned.
            onward: The process's offer to go on with what it makes ready; where somebody is to be asked about starts, no offer.

        Returns:
            What waits for the answer, None where that is not to be had this way and nothing was written; None where it is known.

        Raises:
            DBAPIError: The connection was lost, and whether the result is stored is not known. What is returned raises it too.
        """
        if ref.token is None or not self._is_open():
            return None
        fault_point("complete.commit", ref.task_id)
        document = json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode()
        parameters = [*_identity(ref), document, self._redispatch_s]
        if onward is not None and not rules_of(self._database.engine).on_starts:
            fault_point("runthrough.commit", ref.task_id)
            offer = onward.carrier_id.encode(), _array_of(onward.kinds), onward.token.encode(), self._lease_s
            answer = self._database.send_prepared("complete and claim", COMPLETE_AND_CLAIM, [*parameters, *offer])
        else:
            answer = self._database.send_prepared("complete", COMPLETE, parameters)

        def completed() -> Completed | None:
            try:
                fault_point("complete.sent", ref.task_id)
            finally:
                rows = answer()
            if not rows:
                return self._end(ref, document)
            fault_point("complete.committed", ref.task_id)
            return self._completed(ref, rows, onward)

        return completed

    def _end(self, ref: AttemptRef, document: bytes) -> Completed | None:
        """The same for the last step of a run that completes with it."""
        rows = self._database.send_prepared("end", END, (*_identity(ref), document))()
        if not rows:
            return None
        fault_point("complete.committed", ref.task_id)
        of_step, of_run = rows
        cause = Cause(_text(of_step[6]), "completed", {"task_id": ref.task_id})
        step = _change((ref.run_id, ref.step_id), of_step, StepState.RUNNING, StepState.COMPLETED, cause)
        cause = Cause(ENGINE, EVERY_STEP_IS_SETTLED)
        run = _change((ref.run_id, ref.step_id), of_run, WorkflowState.EXECUTING, WorkflowState.COMPLETED, cause)
        run = replace(run, entity_type=WORKFLOW_TABLE.entity_type, entity_id=ref.run_id, step_key=None, attempt=None)
        return Completed(Effects(changes=[step, run]))

    def _completed(self, ref: AttemptRef, rows: list[list[bytes | None]], onward: RunThroughOffer | None) -> Completed:
        worker = _text(rows[0][6])
        cause = Cause(worker, "completed", {"task_id": ref.task_id})
        change = _change((ref.run_id, ref.step_id), rows[0], StepState.RUNNING, StepState.COMPLETED, cause)
        ready = [(row, _dispatch(ref, change.session_id, row)) for row in rows if row[7] is not None]
        dispatches = [dispatch for row, dispatch in ready if not _is_claimed(row)]
        # Claimed in the statement that made it due: nothing is left to send. Others are due with it where a predecessor of theirs
        # has completed while the statement waited for the run, which saw only one that would be ready.
        row, taken = next(((row, dispatch) for row, dispatch in ready if _is_claimed(row)), (None, None))
        if onward is None or row is None or taken is None:
            return Completed(Effects(changes=[change], dispatches=dispatches))
        fault_point("runthrough.committed", taken.task_id)
        claimed = _change(
            (ref.run_id, taken.step_id),
            (*row[_CLAIMED_AT:], row[3], row[8], str(taken.attempt).encode()),
            StepState.PENDING,
            StepState.RUNNING,
            Cause(worker, "claimed", {"carrier": onward.carrier_id}),
        )
        return Completed(Effects(changes=[change, claimed], dispatches=dispatches), taken)

    def _is_open(self) -> bool:
        return self._database.sends_prepared and not self._database.emitter.listens(STATE_CHANGING)


def _is_claimed(row: Sequence[bytes | None]) -> bool:
    """Whether the step of a row is one that an offer has claimed."""
    return len(row) > _CLAIMED_AT and row[_CLAIMED_AT] is not None


@lru_cache(maxsize=100)
def _array_of(kinds: frozenset[str]) -> bytes:
    """Texts as PostgreSQL reads an array; made once, since a process offers the same at every step."""
    quoted = (kind.replace("\\", "\\\\").replace('"', '\\"') for kind in sorted(kinds))
    return ("{" + ",".join(f'"{kind}"' for kind in quoted) + "}").encode()


def _identity(ref: AttemptRef) -> tuple[bytes, bytes, bytes, bytes]:
    return ref.run_id.encode(), ref.step_id.encode(), ref.task_id.encode(), (ref.token or "").encode()


def _change(ids: tuple[str, str], row: Sequence[bytes | None], source: str, target: str, cause: Cause) -> StateChange:
    run_id, step_id = ids
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
