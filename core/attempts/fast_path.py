"""Claim and completion of the common case, one statement each, on PostgreSQL; the end of a run is in `hot_ending`.

`attempts` asks here first, and waits for the answer once it has nothing else to do. What is granted or recorded here is what
`unit_of_work` and `flow` would have written, row for row; a case that is not plain (an approval, a map, a condition, a limit, a
pause, the end of a run that has not completed) finds no row, changes nothing, and goes the long way.
`tests/core/attempts/test_fast_path.py` compares the two.

Each statement locks the run's row first and everything else behind it. It may read and lock in one, which a unit of work must
not, because nothing in it depends on what it *read* of a sibling: the counters of dependents are counted down in place, and
PostgreSQL takes the row's newest version for that, whoever has counted before (ADR 7).

Rows are found by their ids. What else must hold of them is asked in a way that no index answers (`IS NOT DISTINCT FROM`): a plan is
made while few steps are pending, is kept while thousands are, and would read them all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from interlock.core.events import STATE_CHANGING, Dispatch, Effects, StateChange
from interlock.core.fault_points import fault_point
from interlock.core.machine.cause import Cause
from interlock.core.machine.guard_rules import rules_of
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE
from interlock.core.orchestration.flow import ENGINE, EVERY_STEP_IS_SETTLED

from .fast_path_sql import DONE, END, HISTORY, TURN
from .run_through import KIND_SEPARATOR, NOT_CARRIED, array_of, carried_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from interlock.core.database.database import Database
    from interlock.core.settings import Settings

    from .claims import AttemptRef
    from .run_through import Onward

__all__ = ["Completed", "HotPath"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What a step's plan may hold that makes it more than a task which starts when all before it have completed.
_NOT_PLAIN: Final = "'{approval,each,map,trigger,when}'"

_TOLD: Final = "RETURNING id, seq, (extract(epoch FROM created_at) * 1000000)::bigint AS at"

# ruff: noqa: S608 - what is formatted into the statements are constants
_CLAIM: Final = f"""
WITH run AS MATERIALIZED (
    SELECT r.id FROM workflow_runs r, {TURN} WHERE r.id = $1::uuid AND r.status = '{WorkflowState.EXECUTING}' FOR UPDATE OF r
), moved AS (
    UPDATE workflow_steps s
    SET status = '{StepState.RUNNING}', claim_token = $4::text, claimed_by = $5::text, claimed_at = clock_timestamp(),
        lease_until = clock_timestamp() + $6::float * INTERVAL '1 second',
        timeout_at = clock_timestamp() + ((s.spec ->> 'timeout_s')::float + $7::float) * INTERVAL '1 second',
        dispatch_check_at = NULL, started_at = coalesce(s.started_at, clock_timestamp())
    FROM run
    WHERE s.id = $2::uuid
        AND (s.run_id, s.task_id, s.claim_token, s.status) IS NOT DISTINCT FROM (run.id, $3::text, NULL, '{StepState.PENDING}')
    RETURNING s.id, s.session_id, s.key, s.attempt
), counter AS (
    UPDATE workflow_runs r SET seq = r.seq + 1 FROM moved WHERE r.id = $1::uuid RETURNING r.seq
), told AS (
    {HISTORY}
    SELECT '{STEP_TABLE.entity_type}', moved.id, moved.session_id, $1::uuid, counter.seq,
        '{StepState.PENDING}', '{StepState.RUNNING}', 'claimed', $5::text, moved.key, moved.attempt, clock_timestamp(), NULL
    FROM moved, counter {_TOLD}
)
SELECT told.id, told.seq, told.at, moved.session_id, moved.key, moved.attempt FROM told, moved
"""


def _completion(*, offered: bool) -> str:
    """The statement that completes a step; one for offers to go on and one without, since most of what it costs is its size."""
    if offered:
        fitting = f""",
            CASE WHEN s.spec ?| '{{{",".join(NOT_CARRIED)}}}' THEN 'false' ELSE s.spec -> 'run_through' END AS run_through,
            coalesce(s.spec ->> 'queue', '') || '{KIND_SEPARATOR}' || s.task AS kind"""
        offer = f""", d.run_through, d.kind,
        d.status = '{StepState.PENDING}' AND d.attempt = 0 AND d.open_deps = 1 AS ready"""
        by_default = ", r.spec -> 'run_through' AS run_through"
        next_one = """, next AS MATERIALIZED (
    SELECT d.id FROM run, dependents d
    WHERE d.ready AND coalesce(d.run_through, run.run_through) = 'true' AND d.kind = ANY($8::text[])
        AND (SELECT count(*) FROM dependents WHERE ready) = 1
)"""
        taken = "d.open_deps = 1 AND next.id = d.id"
        started = f""",
        status = CASE WHEN {taken} THEN '{StepState.RUNNING}' ELSE d.status END,
        claim_token = CASE WHEN {taken} THEN $9::text END,
        carrier_id = CASE WHEN {taken} THEN $7::text END,
        claimed_by = CASE WHEN {taken} THEN done.claimed_by END,
        claimed_at = CASE WHEN {taken} THEN clock_timestamp() END,
        lease_until = CASE WHEN {taken} THEN clock_timestamp() + $10::float * INTERVAL '1 second' END,
        started_at = CASE WHEN {taken} THEN coalesce(d.started_at, clock_timestamp()) ELSE d.started_at END
    FROM done LEFT JOIN next ON true"""
        claims = "(SELECT count(*) FROM counted WHERE carrier_id IS NOT NULL)"
        claimed = f"""
    UNION ALL
    SELECT '{STEP_TABLE.entity_type}', counted.id, done.session_id, $1::uuid, counter.seq,
        '{StepState.PENDING}', '{StepState.RUNNING}', 'claimed', done.claimed_by, counted.key, counted.attempt,
        clock_timestamp(), jsonb_build_object('carrier', counted.carrier_id)
    FROM done, counter, counted WHERE counted.carrier_id IS NOT NULL"""
        answer = """, claimed.id, claimed.seq, claimed.at
FROM done JOIN told ON told.entity_id = done.id LEFT JOIN counted ON counted.attempt = 1
    LEFT JOIN told claimed ON claimed.entity_id = counted.id"""
    else:
        fitting = offer = by_default = next_one = claimed = ""
        taken, started, claims = "false", " FROM done", "0"
        answer = " FROM done CROSS JOIN told LEFT JOIN counted ON counted.attempt = 1"
    return f"""
WITH dependents AS MATERIALIZED (
    SELECT d.id, d.special OR (d.unmet_deps > 0 AND d.status = '{StepState.PENDING}') AS special
        {offer}
    FROM step_dependencies e CROSS JOIN LATERAL (
        SELECT s.id, s.status, s.attempt, s.open_deps, s.unmet_deps, s.spec ?| {_NOT_PLAIN} AS special{fitting}
        FROM workflow_steps s WHERE s.id = e.step_id
        OFFSET 0 -- or the planner looks through all steps for special ones first
    ) d
    WHERE e.upstream_id = $2::uuid
), run AS MATERIALIZED (
    SELECT r.id{by_default} FROM workflow_runs r, {TURN}
    WHERE r.id = $1::uuid AND r.status = '{WorkflowState.EXECUTING}'
        AND r.open_steps > 1 AND r.waiting_steps = 0 AND r.max_parallel IS NULL
        AND NOT EXISTS (SELECT FROM dependents WHERE special)
    FOR UPDATE OF r
), {DONE}){next_one}, counted AS (
    UPDATE workflow_steps d
    SET open_deps = d.open_deps - 1,
        attempt = CASE WHEN d.open_deps = 1 THEN 1 ELSE 0 END,
        task_id = CASE WHEN d.open_deps = 1 THEN d.id::text || '.1' END,
        dispatches = CASE WHEN d.open_deps = 1 THEN 1 ELSE 0 END,
        dispatch_check_at = CASE WHEN d.open_deps = 1 AND NOT coalesce({taken}, false)
            THEN clock_timestamp() + $6::float * INTERVAL '1 second' END{started}
    WHERE d.id = ANY(ARRAY(SELECT id FROM dependents))
        AND (d.status, d.attempt) IS NOT DISTINCT FROM ('{StepState.PENDING}', 0)
    RETURNING d.id, d.key, d.position, d.task, d.task_id, d.celery_retries, d.spec, d.attempt, d.carrier_id
), counter AS (
    UPDATE workflow_runs r SET seq = r.seq + 1 + {claims}, open_steps = r.open_steps - 1
    FROM done WHERE r.id = $1::uuid RETURNING r.seq
), told AS (
    {HISTORY}
    SELECT '{STEP_TABLE.entity_type}', done.id, done.session_id, $1::uuid, counter.seq - {claims},
        '{StepState.RUNNING}', '{StepState.COMPLETED}', 'completed', done.claimed_by, done.key, done.attempt,
        clock_timestamp(), jsonb_build_object('task_id', $3::text)
    FROM done, counter{claimed}
    {_TOLD}, entity_id
)
SELECT told.id, told.seq, told.at, done.session_id, done.key, done.attempt, done.claimed_by,
    counted.id, counted.key, counted.task, counted.task_id, counted.celery_retries, counted.spec{answer}
ORDER BY counted.position
"""


_COMPLETE: Final = _completion(offered=False)
_COMPLETE_AND_CLAIM: Final = _completion(offered=True)

for _source, _target in ((StepState.PENDING, StepState.RUNNING), (StepState.RUNNING, StepState.COMPLETED)):
    if not STEP_TABLE.allows(_source, _target):  # what the statements write is data of the table
        raise AssertionError(_source, _target)

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
        is_first = ref.task_id == carried_attempt(
            ref.step_id
        )  # a later one runs since it was made, and is never found here
        if ref.token is None or not is_first or not self._is_open() or rules_of(self._database.engine).on_starts:
            return None
        fault_point("claim.commit", ref.task_id)
        parameters = (*_identity(ref), worker.encode(), self._lease_s, self._overdue_s)
        answer = self._database.send_prepared("claim", _CLAIM, parameters)

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
        self, ref: AttemptRef, result: Any, onward: Onward | None = None
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
            offer = onward.carrier_id.encode(), array_of(onward.kinds), onward.token.encode(), self._lease_s
            answer = self._database.send_prepared("complete and claim", _COMPLETE_AND_CLAIM, [*parameters, *offer])
        else:
            answer = self._database.send_prepared("complete", _COMPLETE, parameters)

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

    def _completed(self, ref: AttemptRef, rows: list[list[bytes | None]], onward: Onward | None) -> Completed:
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
        return self._database.dialect == "postgresql" and not self._database.emitter.listens(STATE_CHANGING)


def _is_claimed(row: Sequence[bytes | None]) -> bool:
    """Whether the step of a row is one that an offer has claimed."""
    return len(row) > _CLAIMED_AT and row[_CLAIMED_AT] is not None


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
