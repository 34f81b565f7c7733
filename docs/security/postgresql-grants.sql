-- What each role may do with the tables: as interlock_owner, in the database, after each `interlock db upgrade`.

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO interlock_worker, interlock_producer, interlock_auditor;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO interlock_worker, interlock_producer, interlock_auditor;

-- Nobody but the owner changes or deletes history (and a trigger stops the owner, too), deletes runs, or alters tables.
GRANT INSERT ON workflow_runs, workflow_steps, step_dependencies, state_history, approval_requests, control_commands
    TO interlock_worker, interlock_producer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO interlock_worker, interlock_producer;

-- Workers move everything, replace a plan that has not started, forget old commands, and send lost messages again.
GRANT UPDATE ON workflow_runs, workflow_steps, approval_requests, control_commands TO interlock_worker;
GRANT DELETE ON workflow_steps, control_commands TO interlock_worker;
GRANT INSERT, UPDATE ON redispatch_budget TO interlock_worker;

-- Producers start what they enqueue. They change no step's task or arguments and no input, write no result, and decide no
-- approval. So a run in which a step ends at once (a map over an empty list, a condition that cannot be evaluated) is
-- refused to them as a whole; such plans go over the control queue.
GRANT UPDATE (status, spec, max_parallel, seq, open_steps, waiting_steps, started_at, start_at, deadline_at)
    ON workflow_runs TO interlock_producer;
GRANT UPDATE (status, open_deps, unmet_deps, failed_deps, attempt, task_id, claim_token, claimed_by, claimed_at, lease_until,
              drain_task_id, drain_token, drain_until, dispatches, dispatch_check_at, retry_at, timeout_at, override,
              celery_retries, started_at, completed_at)
    ON workflow_steps TO interlock_producer;
GRANT UPDATE (outcome) ON control_commands TO interlock_producer;
