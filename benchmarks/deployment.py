"""Interlock's side without a worker: a migrated database, a broker, clients; and what must hold before a figure counts."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Self

from celery import Celery
from sqlalchemy import select

from interlock import Client, Step, Workflow
from interlock.core import WorkflowRun, open_database
from interlock.core.verify import Verification, verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.site import Site
    from interlock.core.database.database import Database

__all__ = ["KINDS", "Deployment", "chain_of", "check_runs", "fan_out_of"]

KINDS = ("PostgreSQL", "SQLite")


class Deployment:
    """A database and a broker of its own.

    Args:
        site: The servers.
        kind: `PostgreSQL` or `SQLite`.

    Attributes:
        name: As the report calls it.
        url: The database.
        broker_url: The broker, and where the events are published.
        database: To look into; nothing is attached to it.
        app: A producer's app, which knows no task.
    """

    def __init__(self, site: Site, kind: str) -> None:
        self.name = f"Interlock, {kind}"
        self._site = site
        self.url = site.migrated_postgres() if kind == "PostgreSQL" else site.migrated_sqlite()
        self.broker_url = site.broker_url()
        self.database: Database = open_database(self.url)
        self.app = Celery("benchmark_producer", broker=self.broker_url, set_as_current=False)
        self.app.conf.update(task_ignore_result=True, interlock_check_tasks=False, interlock_database_url=self.url)
        self._sessions = count()

    @contextmanager
    def client(self, **options: Any) -> Iterator[Client]:
        """A client with a session of its own, so that what it enqueues can be told from the rest."""
        with Client(self.app, session_id=f"s{next(self._sessions)}", actor="benchmark", **options) as client:
            yield client

    def __enter__(self) -> Self:
        """Return it; nothing is started."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close, and drop the database."""
        self.app.close()
        self.database.dispose()
        if self.url.startswith("postgresql"):
            self._site.drop_postgres(self.url)


def chain_of(length: int, task: str = "noop", *, run_through: bool = False) -> Workflow:
    """A workflow of steps one behind the other; with `run_through`, a process may go on from one to the next."""
    steps = [Step(f"s{n}", task, after=[f"s{n - 1}"] if n else []) for n in range(length)]
    return Workflow("chain", "Measure a chain.", steps, run_through=run_through)


def fan_out_of(width: int, task: str = "noop", *, joined: bool = True) -> Workflow:
    """A workflow of steps side by side, and one behind them all."""
    keys = [f"s{n}" for n in range(width)]
    join = [Step("join", task, after=keys)] if joined else []
    return Workflow("fan-out", "Measure a fan-out.", [*(Step(key, task) for key in keys), *join])


def check_runs(database: Database, run_ids: Sequence[str], *, steps: int, status: str = "completed") -> None:
    """Replay the histories of runs: a fast wrong run is no result.

    Raises:
        AssertionError: A run has not ended so, a step is missing, or a history is not sound.
    """
    runs = WorkflowRun.__table__
    with database.reading() as connection:
        query = select(runs.c.id, runs.c.status).where(runs.c.id.in_(run_ids))
        found: dict[str, Any] = {row.id: row.status for row in connection.execute(query)}
    wrong = {run_id: found.get(run_id) for run_id in run_ids if found.get(run_id) != status}
    verification = Verification()
    findings = [finding for run_id in run_ids for finding in verify(database, verification, run_id)]
    if wrong or findings or verification.steps != steps or verification.without_history:
        msg = f"no result: not {status}: {wrong}; {verification}; {findings[:5]}"
        raise AssertionError(msg)
