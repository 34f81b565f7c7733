"""What differs between the tables that are there and those of the models, and what `check` says of it."""

from __future__ import annotations

import pickle

import pytest

from interlock.core.database.tables import Base
from interlock.core.errors import NotMigrated
from interlock.migrations import TablesDiffer, check, downgrade, upgrade
from interlock.migrations.comparison import _bare, find_differences
from tests.migrations.catalog import connected, definitions, execute, set_revision

# What was changed by hand, and the words that must tell it.
DRIFT = [
    ("ALTER TABLE workflow_runs ADD COLUMN extra INTEGER", "workflow_runs.extra: not expected"),
    ("ALTER TABLE workflow_runs DROP COLUMN error", "workflow_runs.error: missing"),
    ("DROP TABLE control_commands", "control_commands: missing"),
    ("DROP INDEX ix_state_history_created_at", "state_history: index ix_state_history_created_at missing"),
    (
        "CREATE INDEX by_name ON workflow_runs (name)",
        "workflow_runs: index by_name not expected",
    ),
    (
        "DROP INDEX ix_workflow_steps_due_at; CREATE INDEX ix_workflow_steps_due_at ON workflow_steps (due_at)",
        "workflow_steps: index ix_workflow_steps_due_at where None, should be where due_at IS NOT NULL",
    ),
    (
        """DROP INDEX uq_workflow_runs_idempotency_key;
        CREATE INDEX uq_workflow_runs_idempotency_key ON workflow_runs (session_id, idempotency_key)""",
        "workflow_runs: index uq_workflow_runs_idempotency_key",
    ),
]
DRIFT_ON_POSTGRESQL = [
    *DRIFT,
    ("ALTER TABLE workflow_runs ALTER name TYPE VARCHAR(10)", "workflow_runs.name: type is VARCHAR(10), should be"),
    ("ALTER TABLE workflow_runs ALTER meta TYPE JSON", "workflow_runs.meta: type is JSON, should be"),
    ("ALTER TABLE workflow_runs ALTER status DROP NOT NULL", "workflow_runs.status: nullable is True"),
    ("ALTER TABLE workflow_runs ALTER seq DROP DEFAULT", "workflow_runs.seq: default is None, should be 0"),
    ("ALTER TABLE workflow_runs ALTER created_at SET DEFAULT now()", "workflow_runs.created_at: default is now()"),
    (
        "ALTER TABLE workflow_runs ALTER due_at DROP EXPRESSION",
        "workflow_runs.due_at: generated as None, should be LEAST(start_at, deadline_at)",
    ),
    (
        """ALTER TABLE workflow_steps DROP COLUMN due_at;
        ALTER TABLE workflow_steps ADD due_at TIMESTAMPTZ GENERATED ALWAYS AS (LEAST(retry_at)) STORED;
        CREATE INDEX ix_workflow_steps_due_at ON workflow_steps (due_at) WHERE due_at IS NOT NULL""",
        "workflow_steps.due_at: generated as LEAST(retry_at), should be LEAST(dispatch_check_at, retry_at,",
    ),
    ("ALTER TABLE state_history DROP CONSTRAINT uq_state_history_workflow_id_seq", "uq_state_history_workflow_id_seq"),
    (
        "ALTER TABLE workflow_steps DROP CONSTRAINT fk_workflow_steps_run_id_workflow_runs",
        "workflow_steps: fk fk_workflow_steps_run_id_workflow_runs missing",
    ),
    (
        "ALTER TABLE state_history DISABLE TRIGGER state_history_no_delete",
        "state_history: trigger state_history_no_delete missing",
    ),
    (
        "DROP TRIGGER state_history_no_truncate ON state_history",
        "state_history: trigger state_history_no_truncate missing",
    ),
]
DRIFT_ON_SQLITE = [
    *DRIFT,
    ("DROP TRIGGER state_history_no_update", "state_history: trigger state_history_no_update missing"),
    ("DROP TRIGGER state_history_no_replace", "state_history: trigger state_history_no_replace missing"),
]


def _assert_found(url: str, change: str, words: str) -> None:
    execute(url, *change.split(";"))
    with pytest.raises(TablesDiffer) as caught:
        check(url)
    assert [difference for difference in caught.value.differences if words in difference], caught.value
    assert words in str(caught.value)


@pytest.mark.parametrize(("change", "words"), DRIFT_ON_SQLITE)
def test_what_was_changed_by_hand_is_found_on_sqlite(migrated_sqlite_url: str, change: str, words: str) -> None:
    _assert_found(migrated_sqlite_url, change, words)


@pytest.mark.parametrize(("change", "words"), DRIFT_ON_POSTGRESQL)
def test_what_was_changed_by_hand_is_found_on_postgresql(migrated_postgres_url: str, change: str, words: str) -> None:
    _assert_found(migrated_postgres_url, change, words)


def test_every_difference_is_listed(migrated_url: str) -> None:
    execute(migrated_url, "DROP INDEX ix_state_history_created_at", "DROP TABLE control_commands")
    with pytest.raises(TablesDiffer) as caught:
        check(migrated_url)
    assert sorted(caught.value.differences) == [
        "control_commands: index ix_control_commands_created_at missing",
        "control_commands: missing",
        "state_history: index ix_state_history_created_at missing",
    ]


def test_tables_of_the_application_are_no_difference(migrated_url: str) -> None:
    execute(migrated_url, "CREATE TABLE orders (id INTEGER PRIMARY KEY)", "CREATE INDEX by_id ON orders (id)")
    check(migrated_url)


def test_storage_options_are_the_operators_to_tune(migrated_postgres_url: str) -> None:
    execute(migrated_postgres_url, "ALTER TABLE workflow_runs SET (fillfactor = 50, autovacuum_enabled = off)")
    check(migrated_postgres_url)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("status = 'pending'", "((status)::text = 'pending'::text)"),
        ("Name IN ('a') AND x IS NULL", "(\"name\" IN ('a'::character varying) AND (x IS NULL))"),
    ],
)
def test_expressions_are_the_same_however_the_database_shows_them(written: str, shown: str) -> None:
    assert _bare(written) == _bare(shown)


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(TablesDiffer(["workflow_runs.name: missing"])))  # noqa: S301 - made here
    assert error.differences == ("workflow_runs.name: missing",)
    assert "workflow_runs.name: missing" in str(error)


def test_a_database_that_is_behind_is_refused_before_it_is_compared(migrated_url: str) -> None:
    set_revision(migrated_url, "0000")
    execute(migrated_url, "DROP TABLE control_commands")
    with pytest.raises(NotMigrated):
        check(migrated_url)


def test_a_database_of_a_later_version_is_not_compared(migrated_url: str) -> None:
    set_revision(migrated_url, "0999")
    execute(migrated_url, "DROP TABLE control_commands")
    check(migrated_url)


def test_alembic_finds_no_difference_from_the_models(migrated_url: str) -> None:
    with connected(migrated_url) as connection:
        assert find_differences(connection) == []


def test_the_database_describes_migrated_tables_as_it_does_those_made_from_the_models(database_url: str) -> None:
    """Every column, default, generated expression, constraint and index, as the database itself tells them."""
    upgrade(database_url)
    migrated = definitions(database_url)
    downgrade(database_url, "base")
    with connected(database_url) as connection:
        Base.metadata.create_all(connection)
    assert definitions(database_url) == migrated
    assert sum(map(len, migrated.values())) > 100
