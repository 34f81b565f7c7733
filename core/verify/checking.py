"""Checks a database: every run, one after the other, and then what only all rows together show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import String, cast, func, select

from interlock.core.database.tables import ControlCommand, WorkflowRun, table_of_model

from .approvals import request_findings
from .entities import Entities, settled_among
from .findings import Finding, Verification
from .plan import Plan
from .reading import next_runs, one_run
from .replay import Replay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row

    from interlock.core.database.database import Database

    from .reading import Batch

__all__ = ["verify"]

_runs = table_of_model(WorkflowRun)
_commands = table_of_model(ControlCommand)


def verify(database: Database, verification: Verification, run_id: str | None = None) -> Iterator[Finding]:
    """Check one run, or every run of the database, of whatever session.

    It reads and never writes, and may run while workers work: each run is seen as a commit has left it. Memory is bounded by
    the largest run, and by what is found in some hundred of them.

    Args:
        database: What to check.
        verification: Counts what was looked at, while it is looked at.
        run_id: The run; None for all.

    Yields:
        What was found, as it is found.

    Raises:
        RunNotFound: There is no such run.
    """
    for part in _parts(database, verification, run_id):
        for finding in part:
            verification.findings[finding.kind] += 1
            yield finding


def _parts(database: Database, verification: Verification, run_id: str | None) -> Iterator[list[Finding]]:
    """What is found, part by part; between two of them no transaction is open, however long somebody takes to read one."""
    if run_id is not None:
        with one_run(database, run_id) as batch:
            found = list(_of_batch(batch, verification))
        yield found
    else:
        yield from _parts_of_all(database, verification)
    with database.snapshot() as connection:
        found = [*_duplicates(connection, run_id), *_foreign_commands(connection, run_id)]
    yield found


def _parts_of_all(database: Database, verification: Verification) -> Iterator[list[Finding]]:
    after: str | None = None
    while True:
        with next_runs(database, after) as batch:
            found = list(_of_batch(batch, verification))
        yield found
        if batch.upto is None:
            return
        after = batch.upto


def _of_batch(batch: Batch, verification: Verification) -> Iterator[Finding]:
    for run in batch.runs:
        yield from _orphans(batch, run.id)
        yield from _check(batch, run, verification)
    yield from _orphans(batch, None)


def _check(batch: Batch, run: Row[*tuple[Any, ...]], verification: Verification) -> Iterator[Finding]:
    steps = {row.id: row for row in batch.steps.of(run.id)}
    replay = Replay(run, steps)
    yield from replay.findings(batch.history.of(run.id))
    settled = settled_among(steps)
    entities = Entities(run, steps, settled, replay)
    yield from entities.findings()
    yield from Plan(run, steps, settled, replay.ever_failed).findings(batch.dependencies.of(run.id))
    yield from request_findings(run, steps, batch.requests.of(run.id))
    verification.runs += 1
    verification.steps += len(steps)
    verification.rows += replay.count
    verification.without_history += entities.without_history()


def _orphans(batch: Batch, before: str | None) -> Iterator[Finding]:
    for stream in batch.streams:
        for run_id, count in stream.unclaimed(before):
            yield Finding("orphan", run_id, "workflow", f"{count} rows of {stream.name} of a run that does not exist")


def _duplicates(connection: Connection, run_id: str | None) -> Iterator[Finding]:
    """Runs with one idempotency key, which the unique index refuses as long as it is there."""
    key = (_runs.c.session_id, _runs.c.idempotency_key)
    query = select(*key, func.count().label("count"), func.min(cast(_runs.c.id, String)).label("first")).where(
        _runs.c.idempotency_key.is_not(None)
    )
    if run_id is not None:
        own = _runs.alias("own")
        query = query.where(
            *(column == select(own.c[column.key]).where(own.c.id == run_id).scalar_subquery() for column in key)
        )
    for row in connection.execute(query.group_by(*key).having(func.count() > 1)):
        text = f"{row.count} runs of session {row.session_id} have the idempotency key {row.idempotency_key!r}"
        yield Finding("duplicate_key", run_id or row.first, "workflow", text)


def _foreign_commands(connection: Connection, run_id: str | None) -> Iterator[Finding]:
    """Commands that were carried out, not refused, on a run of another session than their own."""
    query = (
        select(_commands.c.id, _commands.c.command, _commands.c.session_id, _commands.c.workflow_id)
        .join(_runs, _runs.c.id == _commands.c.workflow_id)
        .where(_runs.c.session_id != _commands.c.session_id, _commands.c.outcome["ok"].as_boolean())
    )
    if run_id is not None:
        query = query.where(_commands.c.workflow_id == run_id)
    for row in connection.execute(query):
        text = f"command {row.id} ({row.command}) came from session {row.session_id}"
        yield Finding("foreign_command", row.workflow_id, "workflow", text)
