"""PostgreSQL keeps the plans of prepared statements: those that were made when nothing was stored must do when much is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from interlock.core import WorkflowController, open_database
from interlock.core.attempts.attempts import AttemptRef
from interlock.core.attempts.fast_path import FastPath, Verdict
from interlock.core.attempts.run_through import RunThroughOffer
from interlock.core.plan.run_through import kind_of
from interlock.core.settings import Settings
from tests.core.rows import step
from tests.core.worker_double import WorkerDouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core import Database
    from tests.servers import PostgresDatabases

SETTINGS = Settings()
KEYS = [f"s{number:02}" for number in range(40)]
CHAIN = [step(key, before, run_through=True) for before, key in zip(["", *KEYS], KEYS, strict=False)]
_READ = text(
    "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_user_tables"
    " WHERE relname IN ('workflow_steps', 'workflow_runs', 'step_dependencies')"
)


@pytest.fixture
def fresh(postgres_databases: PostgresDatabases, postgres_template: str) -> Iterator[Database]:
    """A database of its own, whose tables have never held a row."""
    with postgres_databases.fresh(postgres_template) as url:
        database = open_database(url)
        database.prepare_connections(SETTINGS.idle_transaction_s)
        yield database
        database.dispose()


def _rows_read(database: Database) -> int:
    """By everything so far that the pinned connection has done, which is all that the test does."""
    with database._connections.take() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        connection.commit()
        read = connection.scalar(_READ)
        connection.commit()
    return int(read or 0)


def _through(worker: WorkerDouble, *, offers: bool) -> int:
    """Run a chain that is queued to its end, but for its last two steps; how many steps it ran."""
    ref = worker.claim(KEYS[0])
    for key in KEYS[1:-1]:
        offer = (
            RunThroughOffer(ref.task_id, uuid4().hex, frozenset({kind_of(f"tasks.{key}", None)})) if offers else None
        )
        _, claimed = worker.attempts.complete_and_claim_next(ref, None, offer)
        if offer is None:
            ref = worker.claim(key)
        else:
            assert claimed is not None
            ref = AttemptRef(claimed.run_id, claimed.step_id, claimed.task_id, offer.token)
    return len(KEYS) - 2


@pytest.mark.parametrize("full", [False, True], ids=["made on empty tables", "made on full ones"])
@pytest.mark.parametrize("offers", [False, True], ids=["messages", "run-through"])
@pytest.mark.parametrize("fast", [True, False], ids=["the fast path", "the slow path"])
def test_a_step_reads_as_few_rows_beside_thousands_that_are_pending_as_it_does_alone(
    fresh: Database, monkeypatch: pytest.MonkeyPatch, *, fast: bool, offers: bool, full: bool
) -> None:
    """Nobody has analyzed the tables, as in the first minute after many runs were enqueued."""
    worker = WorkerDouble(fresh, SETTINGS)
    if not fast:
        for name in ("claim", "complete"):
            monkeypatch.setattr(FastPath, name, lambda *_: Verdict.NOT_PLAIN)

    def enqueue(steps: list[dict[str, Any]], times: int = 1) -> None:
        for _ in range(times):
            with fresh.session() as session:
                WorkflowController(session, settings=SETTINGS).enqueue_workflow(steps, task_description="x")

    enqueue(CHAIN, 200 if full else 1)
    _through(worker, offers=offers)  # every plan is made here
    enqueue(CHAIN, 0 if full else 200)
    before = _rows_read(fresh)
    ran = _through(worker, offers=offers)
    assert (_rows_read(fresh) - before) / ran < 150  # all steps of a run, at most
