"""Opening a database, its snapshots, what happens after a commit, and what a forked process leaves alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from interlock.core import open_database
from interlock.core.database.tables import WorkflowRun
from interlock.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from interlock.core import Database, WorkflowController
    from interlock.core.events import Effects


def _in_a_fork(ask: Callable[[], str]) -> str:
    """What a forked process answers."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = ask()
        except BaseException as error:  # noqa: BLE001 - the test's process must not go on in two copies
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def test_a_forked_process_does_not_use_its_parents_connections(database: Database) -> None:
    """A web server that loads its app before it forks, and has enqueued something by then."""

    def connection() -> str:
        with database.engine.connect() as connection:
            if database.dialect == "postgresql":
                return str(connection.scalar(text("SELECT pg_backend_pid()")))
            return str(id(connection.connection.dbapi_connection))

    parents = connection()
    assert connection() == parents  # pooled
    assert _in_a_fork(connection) not in ("", parents)
    assert connection() == parents


def test_a_snapshot_does_not_move_and_cannot_be_written_through(
    database: Database, controller: WorkflowController
) -> None:
    count = text("SELECT count(*) FROM workflow_runs")
    with database.snapshot() as connection:
        assert connection.scalar(count) == 0
        controller.create_workflow("x")
        assert connection.scalar(count) == 0
    with database.reading() as connection:
        assert connection.scalar(count) == 1
        if database.dialect == "postgresql":
            assert connection.scalar(text("SHOW transaction_isolation")) == "read committed"
            assert connection.scalar(text("SHOW transaction_read_only")) == "off"


def test_an_after_commit_handler_that_fails_keeps_no_other_from_its_effects(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit stands, so it must not look like a failure."""
    told: list[Effects] = []

    def fails(effects: Effects) -> None:
        raise RuntimeError(effects)

    def work(_: Connection, effects: Effects) -> str:
        effects.dispatches.append(object())  # type: ignore[arg-type]
        return "done"

    database.after_commit += [fails, told.append]
    assert database.transact(work) == "done"
    assert [len(effects.dispatches) for effects in told] == [1]
    assert "the sweeper will make it good" in caplog.text


def test_a_transaction_without_effects_tells_nobody(database: Database) -> None:
    told: list[Effects] = []
    database.after_commit.append(told.append)
    database.transact(lambda connection, _: connection.execute(text("SELECT 1")))
    assert told == []


def test_an_orm_session_is_committed_at_the_end_of_its_block_and_rolled_back_where_it_raises(
    unchecked_database: Database,
) -> None:
    with unchecked_database.session() as session:
        session.add(WorkflowRun(name="kept"))

    def fail() -> None:
        with unchecked_database.session() as session:
            session.add(WorkflowRun(name="dropped"))
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with unchecked_database.reading() as connection:
        assert connection.scalars(text("SELECT name FROM workflow_runs")).all() == ["kept"]


@pytest.mark.parametrize("url", ["no s3cret", "postgresql://user:pass@s3cret:port/x"])
def test_a_url_that_cannot_be_read_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="it cannot be read") as refused:
        open_database(url)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_url_without_a_driver_uses_psycopg(database: Database) -> None:
    for url in ("postgresql://u@localhost/x", "postgres://u@localhost/x", "postgresql+psycopg://u@localhost/x"):
        assert open_database(url).engine.driver == "psycopg"
    assert database.dialect in ("sqlite", "postgresql")


def test_the_database_shows_itself_without_credentials() -> None:
    assert "secret" not in repr(open_database("postgresql://user:secret@localhost/x"))
