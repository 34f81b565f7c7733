"""`check` and `require_revision`: what is refused, and what it says."""

from __future__ import annotations

import logging
import pickle
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from interlock.core.database import revision
from interlock.core.database.database import open_database
from interlock.core.database.revision import EXPECTED_REVISION, require_revision
from interlock.core.errors import ConfigurationError, NotMigrated
from interlock.migrations import TablesDiffer, check
from interlock.migrations.comparison import _bare
from tests.migrations.catalog import execute, objects, set_revision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from interlock.core.database.database import Database


@pytest.fixture(autouse=True)
def _nobody_was_warned_before() -> None:
    revision._warn_newer.cache_clear()


def _require(url: str) -> None:
    with closing(_Disposable(url)) as opened:
        require_revision(opened.database)


class _Disposable:
    def __init__(self, url: str) -> None:
        self.database = open_database(url)

    def close(self) -> None:
        self.database.dispose()


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A migrated database."""
    with closing(_Disposable(migrated_url)) as opened:
        yield opened.database


BOTH = pytest.mark.parametrize("verb", [check, _require], ids=["check", "require_revision"])


@BOTH
def test_an_empty_database_is_not_migrated(database_url: str, verb: Callable[[str], None]) -> None:
    before = objects(database_url)
    with pytest.raises(NotMigrated, match="interlock db upgrade") as caught:
        verb(database_url)
    assert (caught.value.current, caught.value.expected) == (None, EXPECTED_REVISION)
    assert objects(database_url) == before


@BOTH
@pytest.mark.parametrize("found", ["0000", "ae1027a6acf"], ids=["older", "foreign"])
def test_a_database_that_is_behind_or_foreign_is_refused(
    migrated_url: str, verb: Callable[[str], None], found: str
) -> None:
    set_revision(migrated_url, found)
    with pytest.raises(NotMigrated) as caught:
        verb(migrated_url)
    assert caught.value.current == found


@BOTH
def test_a_version_table_without_a_row_is_not_migrated(migrated_url: str, verb: Callable[[str], None]) -> None:
    execute(migrated_url, "DELETE FROM interlock_version")
    with pytest.raises(NotMigrated):
        verb(migrated_url)


@BOTH
def test_a_migrated_database_is_accepted(
    migrated_url: str, verb: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        verb(migrated_url)
    assert caplog.messages == []


@BOTH
def test_a_newer_database_is_accepted_with_one_warning(
    migrated_url: str, verb: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Workers of the release before run on while the database is already upgraded."""
    set_revision(migrated_url, "0999")
    verb(migrated_url)
    verb(migrated_url)
    assert len(caplog.messages) == 1
    assert "0999" in caplog.text


def test_require_revision_costs_one_statement(database: Database) -> None:
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert require_revision(database) == EXPECTED_REVISION
    assert [statement for statement in statements if not statement.startswith("BEGIN")] == [
        "SELECT version_num FROM interlock_version"
    ]


def test_a_database_that_cannot_be_read_is_not_called_unmigrated(postgres_url: str) -> None:
    """An error other than the missing table is passed on as it is."""
    execute(postgres_url, "CREATE TABLE interlock_version (another_column INTEGER)")
    with pytest.raises(Exception, match="version_num") as caught:
        _require(postgres_url)
    assert not isinstance(caught.value, ConfigurationError)


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
