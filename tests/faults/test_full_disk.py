"""SQLite with no room left, and SQLite that somebody else keeps locked: all or nothing, a clear error, and work goes on behind it.

The disk is a small one in memory, mounted for the module; where this user may not mount, the same is shown with the limit that
SQLite itself can put on its file, in this process alone.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest
from sqlalchemy import event

from interlock.core import WorkflowController, open_database
from interlock.core.database.errors import may_succeed_later
from interlock.core.settings import Settings
from interlock.migrations import upgrade
from tests.core.checker import check
from tests.core.rows import Rows, steps
from tests.core.worker_double import WorkerDouble
from tests.fault_plans import FaultPlan, FaultRule
from tests.faults.conftest import APP, checker_of
from tests.faults.steps import held, step
from tests.servers import wait_until
from tests.worker.deployment import DEADLINE_S, Deployment, gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Connection

    from interlock.core import Database
    from tests.faults.conftest import FaultReport
    from tests.servers import RedisServer

pytestmark = [pytest.mark.faults, pytest.mark.integration]

_MEGABYTE: Final = 1024 * 1024


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of eight megabytes."""
    folder = tmp_path_factory.mktemp("disk")
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None:
        pytest.skip("there is no mount here")
    command = [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"this user may not mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run([unmount, "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> FaultPlan:
    """Only counts."""
    rules = (FaultRule(place="complete.commit", times=None), FaultRule(place="claim.commit", times=None))
    return FaultPlan(folder=tmp_path_factory.mktemp("plan"), rules=rules)


@pytest.fixture(scope="module")
def deployment(
    disk: Path,
    plan: FaultPlan,
    fault_redis: tuple[RedisServer, RedisServer, RedisServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """A worker and a producer with a database on that disk."""
    broker, events, ledger = fault_redis
    url = f"sqlite:///{disk / 'interlock.db'}"
    upgrade(url)
    folder = tmp_path_factory.mktemp("deployment")
    with Deployment(broker, events, url, folder, ledger=ledger, app=APP) as deployment:
        checker_of(deployment)
        deployment.worker("small", **plan.environment())
        yield deployment
        deployment.stop_workers()


@contextmanager
def _full(disk: Path) -> Iterator[None]:
    """Leave no room; what SQLite has set aside in its log is given back first."""
    with closing(sqlite3.connect(disk / "interlock.db")) as connection:
        wait_until(lambda: _truncated(connection), DEADLINE_S, "the log is empty")
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            for size in (_MEGABYTE, 4096, 1):
                _fill(file.fileno(), size)
        yield
    finally:
        ballast.unlink()


def _truncated(connection: sqlite3.Connection) -> bool:
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return busy == 0


def _fill(file: int, size: int) -> None:
    block = b"x" * size
    try:
        while os.write(file, block):
            pass
    except OSError:
        return


def test_a_result_that_finds_no_room_waits_for_it_and_so_does_what_a_person_asks(
    deployment: Deployment, disk: Path, plan: FaultPlan, fault_report: FaultReport
) -> None:
    """F17: a full disk at the commit of a completion, of a verb, and of a new run."""
    with gate(deployment, uuid4().hex) as shut:
        run_id = deployment.enqueue(held("a", shut, "kept"), step("b", "echo", "b", after=["a"]))
        deployment.begun(run_id)
        tried = plan.hits("complete.commit")
        with _full(disk):
            deployment.ledger.open_gate(shut)
            wait_until(lambda: plan.hits("complete.commit") >= tried + 2, DEADLINE_S, "it was tried twice")
            seq = deployment.client.status(run_id)["seq"]
            runs = len(deployment.client.list())
            for ask in (lambda: deployment.client.cancel(run_id), lambda: deployment.enqueue(step("x", "echo", 1))):
                with pytest.raises(Exception, match="disk is full") as no_room:
                    ask()
                assert may_succeed_later(no_room.value)
            assert deployment.client.status(run_id)["seq"] == seq
            assert len(deployment.client.list()) == runs
        room = time.monotonic()
        assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        recovery_s = time.monotonic() - room
    assert deployment.client.result(run_id, "a") == "kept"
    fault_report(fault="F17", injected="disk full at a completion, a cancel and an enqueue", recovery_s=recovery_s)


def test_a_database_that_somebody_keeps_locked_delays_and_fails_nothing(
    deployment: Deployment, disk: Path, fault_report: FaultReport
) -> None:
    """F17: SQLite busy, for longer than a lease."""
    with gate(deployment, uuid4().hex) as shut:
        run_id = deployment.enqueue(held("a", shut), step("b", "echo", "b", after=["a"]))
        deployment.begun(run_id)
        with closing(sqlite3.connect(disk / "interlock.db", isolation_level=None)) as outsider:
            outsider.execute("BEGIN IMMEDIATE")
            deployment.ledger.open_gate(shut)
            locked = time.monotonic()
            wait_until(lambda: time.monotonic() - locked > 3.0, DEADLINE_S, "the lease would have ended")
            outsider.execute("COMMIT")
        free = time.monotonic()
        assert deployment.client.wait(run_id, timeout_s=DEADLINE_S) == "completed"
        recovery_s = time.monotonic() - free
    assert {row.failures for row in deployment.steps(run_id).values()} == {0}
    fault_report(fault="F17", injected="SQLite locked by somebody else for 3 s", recovery_s=recovery_s)


# without a disk of one's own


@pytest.fixture
def bounded(migrated_sqlite_url: str) -> Iterator[tuple[Database, list[int]]]:
    """A database whose transactions can be told how many pages the file may have."""
    database = open_database(migrated_sqlite_url)
    pages: list[int] = []

    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages[0] if pages else 2**30}")

    event.listen(database.engine, "begin", limit)
    yield database, pages
    database.dispose()


def test_every_kind_of_commit_that_finds_no_room_writes_nothing_and_is_done_when_there_is_some(
    bounded: tuple[Database, list[int]], fault_report: FaultReport
) -> None:
    """F17: a plan of a thousand steps, a long result, and a cancel; each without room, and then with it."""
    database, pages = bounded
    worker, rows = WorkerDouble(database, Settings()), Rows(database)
    tries = 0
    with database.session() as session:
        controller = WorkflowController(session, settings=Settings())

        def no_room_then_room(act: Callable[[], object]) -> None:
            nonlocal tries
            before = _everything(database)
            with database.reading() as connection:
                pages.append(int(connection.exec_driver_sql("PRAGMA page_count").scalar_one()))
            with pytest.raises(Exception, match="disk is full") as full:
                act()
            assert may_succeed_later(full.value)
            pages.clear()
            session.rollback()
            assert _everything(database) == before
            act()
            assert _everything(database) != before
            tries += 1

        keys = [f"s{number}" for number in range(1000)]
        no_room_then_room(lambda: controller.enqueue_workflow(steps(*keys), task_description="Be big."))
        (run_id,) = {dispatch.run_id for dispatch in worker.queue}
        ref = worker.claim("s0")
        no_room_then_room(lambda: worker.attempts.complete(ref, "x" * 900_000))
        no_room_then_room(lambda: controller.cancel_workflow(run_id))
        assert rows.run(run_id).status == "cancelled"
    check(database)
    fault_report(
        fault="F17", injected="no room at an enqueue, a result and a cancel of 1,000 steps", runs=tries, lost=0
    )


def _everything(database: Database) -> list[tuple[int, int]]:
    """How many rows there are, and how far each run is."""
    with database.reading() as connection:
        query = "SELECT seq, (SELECT count(*) FROM state_history) FROM workflow_runs"
        return [tuple(row) for row in connection.exec_driver_sql(query)]
