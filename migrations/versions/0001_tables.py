"""The first tables, and the triggers that keep the history append-only.

Written out by hand, and independent of the models: it says for ever what it made, whatever they become.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "control_commands",
    "approval_requests",
    "state_history",
    "step_dependencies",
    "workflow_steps",
    "workflow_runs",
)

ID = sa.String(36).with_variant(sa.Uuid(as_uuid=False), "postgresql")
BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(200)
STATE = sa.String(20)
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
ZERO = sa.text("0")

# Each move of a step leaves a dead entry in ix_workflow_steps_due_at, at the end that every sweep reads first: after
# 100,000 finished steps an empty sweep read 549 pages, after a vacuum one (measured). So it is vacuumed when a fiftieth
# of the rows is dead, not a fifth. A fillfactor was measured and left out: a run's updates stay in their page without.
STEPS_STORAGE = {"autovacuum_vacuum_scale_factor": 0.02}


def upgrade() -> None:
    """Make everything."""
    _workflow_runs()
    _workflow_steps()
    _step_dependencies()
    _state_history()
    _approval_requests()
    _control_commands()
    if _is_postgresql():
        _append_only_on_postgresql()
    else:
        _append_only_on_sqlite()


def downgrade() -> None:
    """Drop everything, rows included; indexes and triggers go with their tables."""
    for table in TABLES:
        op.drop_table(table)
    if _is_postgresql():
        op.execute("DROP FUNCTION state_history_refuse_change()")
        op.execute("DROP FUNCTION state_history_refuse_delete()")


def _is_postgresql() -> bool:
    return op.get_context().dialect.name == "postgresql"


def _clock() -> sa.TextClause:
    # The time of the statement, not of the transaction, in microseconds' notation on SQLite, too.
    return sa.text("clock_timestamp()" if _is_postgresql() else "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))")


def _earliest(*columns: str) -> sa.Computed:
    if _is_postgresql():
        expression = f"LEAST({', '.join(columns)})"
    else:
        # min() of SQLite is NULL as soon as one argument is; '~' sorts behind every digit.
        terms = ", ".join(f"coalesce({column}, '~')" for column in columns)
        expression = f"nullif(min({terms}), '~')"
    return sa.Computed(expression, persisted=True)


def _counter(name: str, kind: type[sa.Integer] = sa.Integer) -> sa.Column[Any]:
    return sa.Column(name, kind, server_default=ZERO, nullable=False)


def _created_at(name: str = "created_at") -> sa.Column[Any]:
    return sa.Column(name, TIME, server_default=_clock(), nullable=False)


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)


def _workflow_runs() -> None:
    op.create_table(
        "workflow_runs",
        sa.Column("id", ID, nullable=False),
        sa.Column("session_id", NAME, nullable=False),
        sa.Column("name", NAME),
        sa.Column("task_description", sa.Text),
        sa.Column("status", STATE, nullable=False),
        sa.Column("spec", JSON),
        sa.Column("input", JSON),
        sa.Column("meta", JSON),
        sa.Column("error", sa.Text),
        _counter("seq", sa.BigInteger),
        _counter("open_steps"),
        _counter("waiting_steps"),
        sa.Column("max_parallel", sa.Integer),
        sa.Column("idempotency_key", NAME),
        sa.Column("forked_from", ID),
        sa.Column("pause_mode", sa.String(20)),
        sa.Column("paused_by", NAME),
        sa.Column("paused_at", TIME),
        _created_at(),
        sa.Column("started_at", TIME),
        sa.Column("completed_at", TIME),
        sa.Column("start_at", TIME),
        sa.Column("deadline_at", TIME),
        sa.Column("due_at", TIME, _earliest("start_at", "deadline_at")),
        sa.PrimaryKeyConstraint("id", name="pk_workflow_runs"),
    )
    op.create_index(
        "uq_workflow_runs_idempotency_key",
        "workflow_runs",
        ["session_id", "idempotency_key"],
        unique=True,
    )
    op.create_index("ix_workflow_runs_session_id", "workflow_runs", ["session_id", "created_at"])
    op.create_index("ix_workflow_runs_status", "workflow_runs", ["status", "id"])
    _partial_index("ix_workflow_runs_due_at", "workflow_runs", ["due_at"], "due_at IS NOT NULL")


def _workflow_steps() -> None:
    op.create_table(
        "workflow_steps",
        sa.Column("id", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("session_id", NAME, nullable=False),
        sa.Column("key", NAME, nullable=False),
        _counter("position"),
        sa.Column("parent_id", ID),
        sa.Column("status", STATE, nullable=False),
        sa.Column("task", sa.String(500)),
        sa.Column("spec", JSON),
        sa.Column("meta", JSON),
        sa.Column("result", JSON),
        sa.Column("error", sa.Text),
        sa.Column("checkpoint", JSON),
        sa.Column("progress", JSON),
        _counter("open_deps"),
        _counter("unmet_deps"),
        _counter("failed_deps"),
        _counter("attempt"),
        sa.Column("task_id", sa.String(250)),
        sa.Column("claim_token", sa.String(64)),
        sa.Column("claimed_by", sa.String(255)),
        sa.Column("claimed_at", TIME),
        sa.Column("lease_until", TIME),
        _counter("failures"),
        _counter("losses"),
        _counter("celery_retries"),
        sa.Column("override", JSON),
        sa.Column("drain_task_id", sa.String(250)),
        sa.Column("drain_token", sa.String(64)),
        sa.Column("drain_until", TIME),
        sa.Column("late", JSON),
        sa.Column("paused_by", NAME),
        sa.Column("pause_mode", sa.String(20)),
        _counter("dispatches"),
        sa.Column("dispatch_check_at", TIME),
        sa.Column("retry_at", TIME),
        sa.Column("timeout_at", TIME),
        sa.Column("due_at", TIME, _earliest("dispatch_check_at", "retry_at", "lease_until", "timeout_at")),
        _created_at(),
        sa.Column("started_at", TIME),
        sa.Column("completed_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_workflow_steps"),
        sa.UniqueConstraint("run_id", "key", name="uq_workflow_steps_run_id_key"),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["workflow_runs.id"],
            name="fk_workflow_steps_run_id_workflow_runs",
            ondelete="CASCADE",
        ),
        postgresql_with=STEPS_STORAGE,
    )
    op.create_index("ix_workflow_steps_run_id_status", "workflow_steps", ["run_id", "status"])
    _partial_index("ix_workflow_steps_due_at", "workflow_steps", ["due_at"], "due_at IS NOT NULL")
    _partial_index("ix_workflow_steps_task_id", "workflow_steps", ["task_id"], "task_id IS NOT NULL")
    _partial_index("ix_workflow_steps_drain_task_id", "workflow_steps", ["drain_task_id"], "drain_task_id IS NOT NULL")
    ready = "attempt = 0 AND open_deps = 0"
    _partial_index("ix_workflow_steps_ready", "workflow_steps", ["run_id", "position"], ready)
    op.create_index("ix_workflow_steps_parent_id", "workflow_steps", ["parent_id"])


def _step_dependencies() -> None:
    op.create_table(
        "step_dependencies",
        sa.Column("upstream_id", ID, nullable=False),
        sa.Column("step_id", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.PrimaryKeyConstraint("upstream_id", "step_id", name="pk_step_dependencies"),
        sa.ForeignKeyConstraint(
            ["upstream_id"],
            ["workflow_steps.id"],
            name="fk_step_dependencies_upstream_id_workflow_steps",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["step_id"],
            ["workflow_steps.id"],
            name="fk_step_dependencies_step_id_workflow_steps",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["workflow_runs.id"],
            name="fk_step_dependencies_run_id_workflow_runs",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_step_dependencies_step_id", "step_dependencies", ["step_id"])
    op.create_index("ix_step_dependencies_run_id", "step_dependencies", ["run_id"])


def _state_history() -> None:
    # No foreign key: a run is archived by deleting its row and then, as the trigger allows from there on, its history.
    op.create_table(
        "state_history",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("entity_type", sa.String(20), nullable=False),
        sa.Column("entity_id", ID, nullable=False),
        sa.Column("session_id", NAME, nullable=False),
        sa.Column("workflow_id", ID, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("from_state", STATE),
        sa.Column("to_state", STATE, nullable=False),
        sa.Column("transition_reason", sa.Text),
        sa.Column("transitioned_by", NAME, nullable=False),
        sa.Column("step_key", NAME),
        sa.Column("attempt", sa.Integer),
        _created_at(),
        sa.Column("meta", JSON),
        sa.PrimaryKeyConstraint("id", name="pk_state_history"),
        sa.UniqueConstraint("workflow_id", "seq", name="uq_state_history_workflow_id_seq"),
        sqlite_autoincrement=True,  # the id of an archived row is the id of an event: never given again
    )
    op.create_index(
        "ix_state_history_entity_type_entity_id_id",
        "state_history",
        ["entity_type", "entity_id", "id"],
    )
    op.create_index("ix_state_history_session_id_id", "state_history", ["session_id", "id"])
    op.create_index("ix_state_history_created_at", "state_history", ["created_at"])


def _approval_requests() -> None:
    op.create_table(
        "approval_requests",
        sa.Column("id", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("step_id", ID),
        sa.Column("session_id", NAME, nullable=False),
        sa.Column("spec", JSON),
        _created_at("requested_at"),
        sa.Column("deadline_at", TIME),
        sa.Column("decision", sa.String(20)),
        sa.Column("applied", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("decided_by", NAME),
        sa.Column("decided_at", TIME),
        sa.Column("comment", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_approval_requests"),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["workflow_runs.id"],
            name="fk_approval_requests_run_id_workflow_runs",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["step_id"],
            ["workflow_steps.id"],
            name="fk_approval_requests_step_id_workflow_steps",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_approval_requests_run_id", "approval_requests", ["run_id"])
    op.create_index("ix_approval_requests_step_id", "approval_requests", ["step_id"])
    _partial_index(
        "ix_approval_requests_deadline_at",
        "approval_requests",
        ["deadline_at"],
        "decision IS NULL AND deadline_at IS NOT NULL",
    )


def _control_commands() -> None:
    op.create_table(
        "control_commands",
        sa.Column("session_id", NAME, nullable=False),
        sa.Column("id", NAME, nullable=False),
        sa.Column("command", sa.String(40), nullable=False),
        sa.Column("workflow_id", ID),
        sa.Column("actor", NAME),
        sa.Column("outcome", JSON, nullable=False),
        _created_at(),
        sa.PrimaryKeyConstraint("session_id", "id", name="pk_control_commands"),
    )
    op.create_index("ix_control_commands_created_at", "control_commands", ["created_at"])


def _append_only_on_postgresql() -> None:
    op.execute("""
        CREATE FUNCTION state_history_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'state_history is append-only'
                USING ERRCODE = 'restrict_violation', DETAIL = TG_OP || ' is never allowed';
        END $$
    """)
    # Once per statement, over all its rows. The table is named with its schema, since a temporary one of the same name,
    # or another search_path, would hide the runs.
    op.execute("""
        CREATE FUNCTION state_history_refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            living boolean;
        BEGIN
            EXECUTE 'SELECT EXISTS (SELECT FROM gone JOIN ' || quote_ident(TG_TABLE_SCHEMA)
                || '.workflow_runs AS run ON run.id = gone.workflow_id)' INTO living;
            IF living THEN
                RAISE EXCEPTION 'state_history is append-only'
                    USING ERRCODE = 'restrict_violation', HINT = 'rows go only after their workflow_runs row';
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER state_history_no_update BEFORE UPDATE ON state_history
        FOR EACH STATEMENT EXECUTE FUNCTION state_history_refuse_change()
    """)
    op.execute("""
        CREATE TRIGGER state_history_no_truncate BEFORE TRUNCATE ON state_history
        FOR EACH STATEMENT EXECUTE FUNCTION state_history_refuse_change()
    """)
    op.execute("""
        CREATE TRIGGER state_history_no_delete AFTER DELETE ON state_history REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION state_history_refuse_delete()
    """)


def _append_only_on_sqlite() -> None:
    op.execute("""
        CREATE TRIGGER state_history_no_update BEFORE UPDATE ON state_history
        BEGIN SELECT RAISE(ABORT, 'state_history is append-only'); END
    """)
    op.execute("""
        CREATE TRIGGER state_history_no_delete BEFORE DELETE ON state_history
        WHEN EXISTS (SELECT 1 FROM workflow_runs WHERE id = OLD.workflow_id)
        BEGIN SELECT RAISE(ABORT, 'state_history is append-only'); END
    """)
    # INSERT OR REPLACE deletes without firing the trigger above.
    op.execute("""
        CREATE TRIGGER state_history_no_replace BEFORE INSERT ON state_history
        WHEN EXISTS (
            SELECT 1 FROM state_history
            WHERE id = NEW.id OR (workflow_id = NEW.workflow_id AND seq = NEW.seq)
        )
        BEGIN SELECT RAISE(ABORT, 'state_history is append-only'); END
    """)
