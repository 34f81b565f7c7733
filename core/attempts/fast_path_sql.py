"""The SQL of the fast path: claim, completion and the end of a run as one PostgreSQL statement each; `fast_path` sends them.

Each statement locks the run's row first and everything else after it. It may read and lock in one statement, which a unit of work
must not, because nothing in it depends on what it *read* of a sibling: the counters of dependents are counted down in place, and
PostgreSQL takes the row's newest version for that, whoever has counted before (ADR 7). `END` is the exception; see there.

Rows are found by their ids. What else must hold of them is asked in a way that no index answers (`IS NOT DISTINCT FROM`): a
prepared plan is made while few steps are pending, is kept while thousands are, and by an index on states would read them all.
"""

from __future__ import annotations

from typing import Final

from interlock.core.database.connections import PreparedStatement
from interlock.core.machine.attempt_columns import FIRST_ATTEMPT
from interlock.core.machine.cause import ENGINE
from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE
from interlock.core.orchestration.dependency_counts import UNSETTLED
from interlock.core.orchestration.run_end import EVERY_STEP_IS_SETTLED
from interlock.core.plan.run_through import KIND_SEPARATOR, NOT_CARRIED

__all__ = ["CLAIM", "COMPLETE", "COMPLETE_AND_CLAIM", "END", "TURN"]

_UNSETTLED: Final = ", ".join(f"'{state}'" for state in UNSETTLED)

# ruff: noqa: S608 - what is formatted into the statements are constants
# What a step's plan may hold that makes it more than a task which starts when all before it have completed.
_NOT_PLAIN: Final = "'{approval,each,map,trigger,when}'"

_RETURNING: Final = "RETURNING id, seq, (extract(epoch FROM created_at) * 1000000)::bigint AS at"

_HISTORY: Final = """
    INSERT INTO state_history (entity_type, entity_id, session_id, workflow_id, seq, from_state, to_state, transition_reason,
                               transitioned_by, step_key, attempt, created_at, meta)
"""

TURN: Final = "(SELECT pg_advisory_xact_lock(1229870411, hashtext($1::text))) turn"
"""An advisory lock per run: of many reporters on one run each is woken once. Without it each waits for the run's row in every one
of its versions, and all are woken at every commit. Not needed for correctness: the row's lock is."""

_DONE: Final = f"""holder AS (
    SELECT id, claimed_by FROM workflow_steps WHERE id = $2::uuid
), done AS (
    UPDATE workflow_steps s
    SET status = '{StepState.COMPLETED}', result = $5::jsonb, error = NULL, late = NULL, completed_at = clock_timestamp(),
        claim_token = NULL, claimed_by = NULL, claimed_at = NULL, lease_until = NULL, timeout_at = NULL, retry_at = NULL,
        dispatch_check_at = NULL, drain_task_id = NULL, drain_token = NULL, drain_until = NULL, carrier_id = NULL
    FROM run, holder
    WHERE s.id = $2::uuid AND holder.id = s.id
        AND (s.run_id, s.task_id, s.claim_token, s.status) IS NOT DISTINCT FROM (run.id, $3::text, $4::text, '{StepState.RUNNING}')
    RETURNING s.id, s.session_id, s.key, s.attempt, holder.claimed_by
"""
"""Completes the step that `$2` names where `run` has a row, and returns who held it."""

CLAIM: Final = PreparedStatement(
    "claim",
    f"""
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
    {_HISTORY}
    SELECT '{STEP_TABLE.entity_type}', moved.id, moved.session_id, $1::uuid, counter.seq,
        '{StepState.PENDING}', '{StepState.RUNNING}', 'claimed', $5::text, moved.key, moved.attempt, clock_timestamp(), NULL
    FROM moved, counter {_RETURNING}
)
SELECT told.id, told.seq, told.at, moved.session_id, moved.key, moved.attempt FROM told, moved
""",
)
"""Claims a pending step's first attempt."""


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
), {_DONE}){next_one}, counted AS (
    UPDATE workflow_steps d
    SET open_deps = d.open_deps - 1,
        attempt = CASE WHEN d.open_deps = 1 THEN 1 ELSE 0 END,
        task_id = CASE WHEN d.open_deps = 1 THEN d.id::text || '{FIRST_ATTEMPT}' END,
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
    {_HISTORY}
    SELECT '{STEP_TABLE.entity_type}', done.id, done.session_id, $1::uuid, counter.seq - {claims},
        '{StepState.RUNNING}', '{StepState.COMPLETED}', 'completed', done.claimed_by, done.key, done.attempt,
        clock_timestamp(), jsonb_build_object('task_id', $3::text)
    FROM done, counter{claimed}
    {_RETURNING}, entity_id
)
SELECT told.id, told.seq, told.at, done.session_id, done.key, done.attempt, done.claimed_by,
    counted.id, counted.key, counted.task, counted.task_id, counted.celery_retries, counted.spec{answer}
ORDER BY counted.position
"""


COMPLETE: Final = PreparedStatement("complete", _completion(offered=False))
"""Completes a running step, and dispatches what it makes ready."""

COMPLETE_AND_CLAIM: Final = PreparedStatement("complete and claim", _completion(offered=True))
"""The same, and claims what it makes ready for the process that offers to run it (run-through)."""

END: Final = PreparedStatement(
    "end",
    f"""
WITH run AS MATERIALIZED (
    SELECT r.id FROM workflow_runs r, {TURN}
    WHERE r.id = $1::uuid AND r.status = '{WorkflowState.EXECUTING}' AND r.open_steps = 1 AND r.waiting_steps = 0
        AND NOT EXISTS (
            SELECT FROM workflow_steps o
            WHERE o.run_id = r.id AND o.id <> $2::uuid AND (
                o.status IN ({_UNSETTLED}) OR o.status = '{StepState.FAILED}'
                    AND (o.retry_at IS NOT NULL OR o.spec ->> 'on_failure' IS DISTINCT FROM 'continue')
            )
        )
    FOR UPDATE OF r
), {_DONE}), ended AS (
    UPDATE workflow_runs r
    SET status = '{WorkflowState.COMPLETED}', completed_at = clock_timestamp(), start_at = NULL, deadline_at = NULL,
        seq = r.seq + 2, open_steps = 0
    FROM done WHERE r.id = $1::uuid RETURNING r.seq
), told AS (
    {_HISTORY}
    SELECT moved.entity_type, moved.entity_id, done.session_id, $1::uuid, moved.seq, moved.from_state, moved.to_state,
        moved.reason, moved.actor, moved.key, moved.attempt, clock_timestamp(), moved.meta
    FROM done, ended, LATERAL (
        VALUES
            ('{STEP_TABLE.entity_type}', done.id, ended.seq - 1, '{StepState.RUNNING}', '{StepState.COMPLETED}', 'completed',
                done.claimed_by, done.key, done.attempt, jsonb_build_object('task_id', $3::text)),
            ('{WORKFLOW_TABLE.entity_type}', $1::uuid, ended.seq, '{WorkflowState.EXECUTING}', '{WorkflowState.COMPLETED}',
                '{EVERY_STEP_IS_SETTLED}', '{ENGINE}', NULL, NULL, NULL)
    ) AS moved (entity_type, entity_id, seq, from_state, to_state, reason, actor, key, attempt, meta)
    ORDER BY moved.seq -- so that ids and times rise with it
    RETURNING id, seq, (extract(epoch FROM created_at) * 1000000)::bigint AS at
)
SELECT told.id, told.seq, told.at, done.session_id, done.key, done.attempt, done.claimed_by FROM told, done ORDER BY told.seq
""",
)
"""Completes a run's last step, and the run with it.

It reads siblings, in the statement that may wait for the run's lock, so it may see them as they were before the wait. That can only
make it find no row: what is settled stays settled unless somebody retries it, and then the run's newest row, which is read after
the wait, counts it as open.
"""

if not (
    STEP_TABLE.allows(StepState.PENDING, StepState.RUNNING)
    and STEP_TABLE.allows(StepState.RUNNING, StepState.COMPLETED)
    and WORKFLOW_TABLE.allows(WorkflowState.EXECUTING, WorkflowState.COMPLETED)
):  # the statements write these edges without asking the tables
    raise AssertionError
