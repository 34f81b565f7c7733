"""Interlock, on either database, with its history and its events on; each history is replayed before a figure counts."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from benchmarks.deployment import Deployment, chain_of, check_runs, fan_out_of
from benchmarks.measuring import Timed
from interlock.core import WorkflowRun
from tests.servers import wait_until

from .base import DEADLINE_S, CeleryCompetitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.site import Site
    from interlock import Client, Workflow

__all__ = ["InterlockCompetitor"]

APP = "benchmarks.apps.interlock_app"
_runs = WorkflowRun.__table__


class InterlockCompetitor(CeleryCompetitor):
    """A worker with its engine, on a deployment of its own.

    Args:
        site: The servers.
        kind: `PostgreSQL` or `SQLite`.
        children: Of the pool.
        run_through: Whether chains ask for it.

    Attributes:
        deployment: Its database, broker and clients.
    """

    def __init__(self, site: Site, kind: str, children: int, *, run_through: bool = False) -> None:
        self.deployment = Deployment(site, kind)
        self.name = f"{self.deployment.name}{', run-through' if run_through else ''}"
        self.only_chains = self._run_through = run_through
        env = {"INTERLOCK_BROKER_URL": self.deployment.broker_url, "INTERLOCK_DATABASE_URL": self.deployment.url}
        super().__init__(site, APP, children=children, env=env)

    def chains(self, count: int, length: int) -> Timed:
        """Enqueue chains and wait for their end."""
        with self.deployment.client() as client:
            return self.run(client, [chain_of(length, run_through=self._run_through)] * count)[0]

    def fan_out(self, width: int) -> Timed:
        """Enqueue one fan-out and wait for its end."""
        with self.deployment.client() as client:
            return self.run(client, [fan_out_of(width)])[0]

    def run(self, client: Client, workflows: Sequence[Workflow]) -> tuple[Timed, list[str]]:
        """Enqueue the workflows, wait for their end, and replay their histories.

        Args:
            client: One whose session has no other runs.
            workflows: What to run.

        Returns:
            The time from the first enqueue to the completion of the last run, as the database recorded it; the runs' ids.
        """
        meter, begun = self.meter(), time.time()
        ids = [client.enqueue(workflow) for workflow in workflows]
        session_id = client.session_id
        with self._looking_for_ends(session_id) as ended:
            wait_until(lambda: ended() == len(ids), DEADLINE_S, f"{self.name}: every run has ended")
            cpu_s = meter.used()
        with self.deployment.database.reading() as connection:
            ended = connection.scalar(select(func.max(_runs.c.completed_at)).where(_runs.c.session_id == session_id))
        steps = sum(len(workflow.plan.steps) for workflow in workflows)
        check_runs(self.deployment.database, ids, steps=steps)
        return Timed(ended.timestamp() - begun, cpu_s), ids

    @contextmanager
    def _looking_for_ends(self, session_id: str) -> Iterator[Callable[[], int]]:
        """What says how many runs have ended; asked fifty times a second, as every competitor that is asked at all.

        By index, on a connection of its own and past SQLAlchemy: a look is a tenth of a millisecond, which through the pool was
        as much as a step.
        """
        engine = self.deployment.database.engine
        postgresql = engine.dialect.name == "postgresql"
        mark = "%s" if postgresql else "?"
        query = f"SELECT count(*) FROM workflow_runs WHERE session_id = {mark} AND completed_at IS NOT NULL"  # noqa: S608 - a placeholder
        # SQLite's connections begin nothing by themselves.
        options = {"isolation_level": "AUTOCOMMIT"} if postgresql else {}
        with engine.connect().execution_options(**options) as connection:
            driver: Any = connection.connection.driver_connection
            yield lambda: int(driver.execute(query, (session_id,)).fetchone()[0])

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        """Stop it, and drop the database."""
        super().__exit__(exc_type, *rest)
        self.deployment.__exit__(exc_type, *rest)
