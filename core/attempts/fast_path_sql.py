"""The completion of a run's last step and of the run with it, as one statement, on PostgreSQL; `hot_path` sends it.

Unlike the other short ways it reads siblings, in the statement that may wait for the run's lock, so it may see them as they were
before the wait. That can only make it decline: what is settled stays settled, unless somebody has it done again, and then the
run's newest row, which is read behind the wait, counts it as open.
"""

from __future__ import annotations

from typing import Final

from interlock.core.model.states import StepState, WorkflowState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE
from interlock.core.orchestration.dependency_counts import UNSETTLED
from interlock.core.orchestration.flow import ENGINE, EVERY_STEP_IS_SETTLED

__all__ = ["DONE", "END", "HISTORY", "TURN"]

_UNSETTLED: Final = ", ".join(f"'{state}'" for state in UNSETTLED)

# ruff: noqa: S608 - what is formatted into the statement are constants
HISTORY: Final = """
    INSERT INTO state_history (entity_type, entity_id, session_id, workflow_id, seq, from_state, to_state, transition_reason,
                               transitioned_by, step_key, attempt, created_at, meta)
"""

TURN: Final = "(SELECT pg_advisory_xact_lock(1229870411, hashtext($1::text))) turn"
"""One after the other, where many report on one run: those that wait for a row wait for each of its versions in turn, and every
waiter is woken for every commit; whoever waits here is woken once. It orders, and protects nothing: the row's lock does that."""

DONE: Final = f"""holder AS (
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
"""Complete the step, where the run in `run` lets it be done, and remember who held it."""

END: Final = f"""
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
), {DONE}), ended AS (
    UPDATE workflow_runs r
    SET status = '{WorkflowState.COMPLETED}', completed_at = clock_timestamp(), start_at = NULL, deadline_at = NULL,
        seq = r.seq + 2, open_steps = 0
    FROM done WHERE r.id = $1::uuid RETURNING r.seq
), told AS (
    {HISTORY}
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
"""

if not (
    STEP_TABLE.allows(StepState.RUNNING, StepState.COMPLETED)
    and WORKFLOW_TABLE.allows(WorkflowState.EXECUTING, WorkflowState.COMPLETED)
):  # what the statement writes is data of the tables
    raise AssertionError
