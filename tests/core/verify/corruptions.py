"""What can be done to a database behind Interlock's back, and the kind of finding that it must lead to.

Written for the runs of `workload.py`, and sorted by the module that finds it; each is a list of statements in SQL that SQLite
and PostgreSQL both understand, and is carried out after the triggers that would refuse it have been dropped.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Corruptions: TypeAlias = dict[str, tuple[list[str], str]]


def _run(name: str) -> str:
    return f"(SELECT id FROM workflow_runs WHERE name = '{name}' AND forked_from IS NULL)"


def _step(run: str, key: str) -> str:
    return f"(SELECT id FROM workflow_steps WHERE run_id = {_run(run)} AND key = '{key}')"


def _set_run(run: str, values: str) -> str:
    return f"UPDATE workflow_runs SET {values} WHERE id = {_run(run)}"


def _set_step(run: str, key: str, values: str) -> str:
    return f"UPDATE workflow_steps SET {values} WHERE id = {_step(run, key)}"


def _set_history(run: str, values: str, condition: str) -> str:
    return f"UPDATE state_history SET {values} WHERE workflow_id = {_run(run)} AND {condition}"


_OF_A = "step_key = 'a' AND to_state"
_COPIED = "entity_type, entity_id, session_id, workflow_id, from_state, to_state, transitioned_by, step_key, attempt"
_LAST = f"seq = (SELECT max(seq) FROM state_history WHERE workflow_id = {_run('completed')})"
_ASKED = f"step_id = {_step('waiting', 'gate')}"

OF_HISTORY: Final[Corruptions] = {
    "a history row deleted": (
        [f"DELETE FROM state_history WHERE seq = 5 AND workflow_id = {_run('completed')}"],
        "seq_gap",
    ),
    "the last history row deleted": (
        [f"DELETE FROM state_history WHERE {_LAST} AND workflow_id = {_run('completed')}"],
        "seq_counter",
    ),
    "the whole history of a run deleted": (
        [f"DELETE FROM state_history WHERE workflow_id = {_run('waiting')}"],
        "seq_counter",
    ),
    "two history rows that change places": (
        [
            _set_history("completed", "seq = 1000", "seq = 7"),
            _set_history("completed", "seq = 7", "seq = 8"),
            _set_history("completed", "seq = 8", "seq = 1000"),
        ],
        "out_of_order",
    ),
    "a time rewritten": ([_set_history("completed", "created_at = '2001-01-01 00:00:00'", "seq = 7")], "out_of_order"),
    "an edge that is not in the table": (
        [_set_history("completed", "to_state = 'paused'", f"{_OF_A} = 'running'")],
        "illegal_edge",
    ),
    "a from_state rewritten": (
        [_set_history("completed", "from_state = 'paused'", f"{_OF_A} = 'completed'")],
        "broken_chain",
    ),
    "a state that does not exist": (
        [_set_history("completed", "to_state = 'done'", f"{_OF_A} = 'completed'")],
        "unknown_state",
    ),
    "history of a step that is not there": (
        [f"DELETE FROM workflow_steps WHERE id = {_step('completed', 'last')}"],
        "unknown_entity",
    ),
    "a move after the end": (
        [
            (
                f"INSERT INTO state_history ({_COPIED}, seq, created_at) "
                f"SELECT {_COPIED}, seq + 1, created_at FROM state_history WHERE {_LAST} AND workflow_id = {_run('completed')}"
            ),
            _set_run("completed", "seq = seq + 1"),
        ],
        "after_the_end",
    ),
    "a workflow that was not executing": (
        [_set_history("completed", "to_state = 'planning'", "to_state = 'executing'")],
        "started_while_not_executing",
    ),
    "an attempt counted backwards": (
        [_set_history("completed", "attempt = 7", "step_key = 'flaky' AND to_state = 'failed'")],
        "attempt_goes_back",
    ),
    "a history row of another session": (
        [_set_history("completed", "session_id = 'other'", "seq = 3")],
        "foreign_session",
    ),
}
"""What `replay` finds."""

OF_ENTITIES: Final[Corruptions] = {
    "an attempt forgotten": ([_set_step("completed", "flaky", "attempt = 1")], "attempt_goes_back"),
    "a step's status changed behind the history": ([_set_step("held", "h", "status = 'failed'")], "status_mismatch"),
    "a run's status changed behind the history": ([_set_run("failed", "status = 'completed'")], "status_mismatch"),
    "a status that does not exist": ([_set_step("held", "h", "status = 'done'")], "unknown_state"),
    "a step of another session": ([_set_step("held", "h", "session_id = 'other'")], "foreign_session"),
    "a run that continues one of another session": ([_set_run("failed", "session_id = 'other'")], "foreign_fork"),
    "an item of a step of another run": (
        [_set_step("held", "beside", f"parent_id = {_step('completed', 'a')}")],
        "foreign_dependency",
    ),
    "a workflow ended over an open step": ([_set_run("held", "status = 'completed'")], "unsettled"),
    "a workflow completed over a failure": ([_set_step("completed", "a", "status = 'failed'")], "uncounted_failure"),
    "a run's end without a time": ([_set_run("completed", "completed_at = NULL")], "end_time"),
    "a step's end without a time": ([_set_step("completed", "a", "completed_at = NULL")], "end_time"),
    "a result lost": ([_set_step("completed", "a", "result = NULL")], "result_missing"),
    "a result of a cancelled step": ([_set_step("cancelled", "a", "result = '1'")], "stray_result"),
    "a result of another attempt": ([_set_step("completed", "a", "task_id = 'another'")], "foreign_result"),
    "a report that nobody applied": ([_set_step("held", "h", "late = '{}'")], "late_report"),
    "a lease lost": ([_set_step("held", "h", "lease_until = NULL")], "stray_claim"),
    "a claim of a paused step": (
        [_set_step("paused", "a", "claim_token = 'x', lease_until = '2099-01-01 00:00:00'")],
        "stray_claim",
    ),
    "a completed step that is due": (
        [_set_step("completed", "a", "retry_at = '2099-01-01 00:00:00'")],
        "stray_timer",
    ),
    "an ended run that is due": ([_set_run("completed", "deadline_at = '2099-01-01 00:00:00'")], "stray_timer"),
    "one step more than the run's limit": (
        [_set_step("held", "beside", "attempt = 1, task_id = 'x', dispatch_check_at = '2099-01-01 00:00:00'")],
        "over_the_limit",
    ),
    "one item more than the map's limit": (
        [_set_step("mapping", "m.1", "attempt = 1, task_id = 'x', dispatch_check_at = '2099-01-01 00:00:00'")],
        "over_the_limit",
    ),
    "half a pause": ([_set_step("paused", "a", "status = 'running'")], "half_paused"),
    "a workflow that waits for nobody": ([_set_step("waiting", "gate", "status = 'cancelled'")], "not_waiting"),
}
"""What `entities` finds."""

OF_PLANS: Final[Corruptions] = {
    "a dependency on a step of another run": (
        [
            (
                f"UPDATE step_dependencies SET upstream_id = {_step('completed', 'a')} "
                f"WHERE step_id = {_step('held', 'behind')}"
            )
        ],
        "foreign_dependency",
    ),
    "steps that wait for each other": (
        [
            (
                "INSERT INTO step_dependencies (upstream_id, step_id, run_id) "
                f"VALUES ({_step('held', 'last')}, {_step('held', 'behind')}, {_run('held')})"
            )
        ],
        "dependency_cycle",
    ),
    "a counter of dependencies": ([_set_step("held", "behind", "open_deps = 5")], "dependency_counts"),
    "a counter of unmet dependencies": ([_set_step("held", "behind", "unmet_deps = 1")], "dependency_counts"),
    "a counter of items": ([_set_step("mapping", "m", "open_deps = 1")], "dependency_counts"),
    "a step that started after a cancelled one": (
        [_set_step("completed", "a", "status = 'cancelled', result = NULL")],
        "wrong_start",
    ),
    "a step skipped for no reason": ([_set_step("completed", "unwanted", "spec = '{}'")], "wrong_skip"),
    "a counter of open steps": ([_set_run("held", "open_steps = open_steps + 1")], "open_steps"),
    "a counter of waiting steps": ([_set_run("waiting", "waiting_steps = 0")], "waiting_steps"),
    "a workflow that executes with nothing left": (
        [_set_run("completed", "status = 'executing'")],
        "forgotten",
    ),
    "every timer of a step lost": (
        [_set_step("held", "h", "claim_token = NULL, lease_until = NULL, timeout_at = NULL, dispatch_check_at = NULL")],
        "forgotten",
    ),
    "a ready step that nobody started": (
        [
            f"DELETE FROM step_dependencies WHERE step_id = {_step('mapping', 'behind')}",
            _set_step("mapping", "behind", "open_deps = 0"),
        ],
        "forgotten",
    ),
}
"""What `plan` finds."""

OF_REQUESTS: Final[Corruptions] = {
    "a request of another session": (
        [f"UPDATE approval_requests SET session_id = 'other' WHERE {_ASKED}"],
        "foreign_session",
    ),
    "a request lost": ([f"DELETE FROM approval_requests WHERE {_ASKED}"], "requests"),
    "a request asked twice": (
        [
            (
                "INSERT INTO approval_requests (id, run_id, step_id, session_id, applied, requested_at) "
                "SELECT '00000000-0000-4000-8000-000000000001', run_id, step_id, session_id, applied, requested_at "
                f"FROM approval_requests WHERE {_ASKED}"
            )
        ],
        "requests",
    ),
    "half a decision": (
        [f"UPDATE approval_requests SET applied = true WHERE {_ASKED}"],
        "requests",
    ),
    "a request that survives its workflow": (
        [
            (
                "UPDATE approval_requests SET decision = NULL, decided_at = NULL, applied = false "
                f"WHERE step_id = {_step('approved', 'gate')}"
            )
        ],
        "requests",
    ),
}
"""What `approvals` finds."""

OF_THE_WHOLE: Final[Corruptions] = {
    "history of a run that is not there": ([f"DELETE FROM workflow_runs WHERE id = {_run('failed')}"], "orphan"),
    "a command of another session": (["UPDATE control_commands SET session_id = 'other'"], "foreign_command"),
    "two runs with one idempotency key": (
        ["DROP INDEX uq_workflow_runs_idempotency_key", _set_run("failed", "idempotency_key = 'once'")],
        "duplicate_key",
    ),
}
"""What `checking` finds by itself."""

CORRUPTIONS: Final[Corruptions] = {**OF_HISTORY, **OF_ENTITIES, **OF_PLANS, **OF_REQUESTS, **OF_THE_WHOLE}
