"""`verify` on a database that workers are moving at the same moment: every run is seen as a commit has left it."""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core import WorkflowController, open_database
from interlock.core.settings import Settings
from interlock.core.verify import Verification, verify
from tests.core.rows import step
from tests.core.worker_double import WorkerDouble
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Event

    from interlock.core import Database

pytestmark = pytest.mark.integration

WRITERS = 2
PASSES = 15
DEADLINE_S = 60.0

PLAN: dict[str, Any] = {
    "task_description": "move",
    "steps": [
        step("a"),
        step("b"),
        step("m", "a", map={"over": "input"}),
        step("join", "a b m"),
        {"key": "gate", "approval": True, "after": ["a"]},
        step("last", "join gate", trigger="all_settled"),
    ],
}


def _write(url: str, stop: Event, moves: Any) -> None:
    """Carry runs out, one after the other, with every third one paused and resumed and every fourth one cancelled."""
    database = open_database(url)
    worker = WorkerDouble(database, Settings())
    number = 0
    while not stop.is_set():
        number += 1
        with database.session() as session:
            _one_run(WorkflowController(session, settings=Settings()), worker, number)
        moves.value += len(worker.changes)
        worker.changes.clear()
    database.dispose()


def _one_run(controller: WorkflowController, worker: WorkerDouble, number: int) -> None:
    run_id = controller.enqueue_workflow(PLAN, input=[1, 2])
    worker.run("a", [1])
    if number % 3 == 0:
        controller.pause_workflow(run_id)
        worker.queue.clear()
        controller.resume_workflow(run_id)
    controller.approve_step(run_id, "gate")
    if number % 4 == 0:
        worker.claim("b")
        controller.cancel_workflow(run_id)
        worker.queue.clear()
        worker.held.clear()
    worker.run_all()


@contextmanager
def _writers(url: str) -> Iterator[Any]:
    """Processes that move runs until the block ends; yields how many moves each has made."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    moves = [context.Value("q", 0) for _ in range(WRITERS)]
    processes = [context.Process(target=_write, args=(url, stop, counter), daemon=True) for counter in moves]
    for process in processes:
        process.start()
    try:
        yield moves
    finally:
        stop.set()
        for process in processes:
            process.join(DEADLINE_S)
            assert process.exitcode == 0
            process.close()


@pytest.mark.usefixtures("database")
def test_a_live_database_is_clean_while_others_move_its_runs(core_url: str, unchecked_database: Database) -> None:
    rows = 0
    with _writers(core_url) as moves:
        wait_until(lambda: all(counter.value for counter in moves), DEADLINE_S, "every writer has moved something")
        before = sum(counter.value for counter in moves)
        for _ in range(PASSES):
            verification = Verification()
            found = list(verify(unchecked_database, verification))
            assert found == []
            rows = verification.rows
        wait_until(lambda: sum(counter.value for counter in moves) > before, DEADLINE_S, "they have gone on meanwhile")
    assert rows > before
