"""Two people, or a person and a timer, at the same step of PostgreSQL: one legal outcome, and the loser is told in a typed error.

Threads, each with a session and so a connection of its own, which meet at a barrier; the workflow's row lock decides.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Barrier
from typing import TYPE_CHECKING, Any, Self

import pytest
from sqlalchemy import select, update

from interlock.core import WorkflowController
from interlock.core.database.tables import ApprovalRequest
from interlock.core.database.types import seconds_after
from interlock.core.errors import AlreadyDecided, CommandRefused, InterlockError, TransitionNotAllowed
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper
from tests.core.rows import step, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core import Database
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

ROUNDS = 100
DEADLINE_S = 30.0

_requests = ApprovalRequest.__table__

Call = tuple[str, tuple[Any, ...]] | Callable[[], Any]


class Pair:
    """Two threads that make their calls at the same moment, with a controller each."""

    def __init__(self, database: Database) -> None:
        self._barrier = Barrier(2, timeout=DEADLINE_S)
        self._pool = ThreadPoolExecutor(2)
        self._sessions = ExitStack()
        self._controllers = [
            WorkflowController(self._sessions.enter_context(database.session()), settings=Settings()) for _ in range(2)
        ]

    def __enter__(self) -> Self:
        """Take part in a `with` block."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End the threads and their sessions."""
        self._pool.shutdown()
        self._sessions.close()

    def race(self, number: int, first: Call, second: Call) -> list[Any]:
        """Make the calls: a verb of the controller with its arguments, or a function of none. Sides and order change by rounds.

        Returns:
            What came of both, in order: what was returned, or the typed error that was raised.
        """
        sides = [0, 1] if number % 2 else [1, 0]
        calls = list(zip(sides, (first, second), strict=True))
        order = [0, 1] if number // 2 % 2 else [1, 0]
        acts = {each: self._pool.submit(self._act, self._controllers[calls[each][0]], calls[each][1]) for each in order}
        return [acts[each].result(DEADLINE_S) for each in (0, 1)]

    def _act(self, controller: WorkflowController, call: Call) -> Any:
        act = call if callable(call) else partial(getattr(controller, call[0]), *call[1])
        self._barrier.wait()
        try:
            return act()
        except InterlockError as refused:
            return refused


@pytest.fixture
def pair(database: Database) -> Iterator[Pair]:
    """The two."""
    with Pair(database) as pair:
        yield pair


def _one_won(outcomes: list[Any], *losers: type[InterlockError]) -> int:
    """Index of the call that won; the other was told why not."""
    errors = [isinstance(outcome, InterlockError) for outcome in outcomes]
    assert sorted(errors) == [False, True], outcomes
    assert isinstance(outcomes[errors.index(True)], losers), outcomes
    return errors.index(False)


def _gate(controller: WorkflowController, **approval: object) -> str:
    return controller.enqueue_workflow(
        [{"key": "g", "approval": approval or True}, step("z", "g")],
        task_description="x",
    )


def _decisions(database: Database, run_id: str) -> list[tuple[str, str]]:
    query = select(_requests.c.decision, _requests.c.decided_by).where(_requests.c.run_id == run_id)
    with database.reading() as connection:
        return [(row.decision, row.decided_by) for row in connection.execute(query)]


def _failed(controller: WorkflowController, worker: WorkerDouble) -> str:
    """A live run whose step a has failed."""
    worker.queue.clear()
    plan = [step("a", on_failure="continue"), step("h"), step("z", "a h", trigger="all_settled")]
    run_id = controller.enqueue_workflow(plan, task_description="x")
    worker.run_failing("a")
    return run_id


def test_approve_racing_cancel(
    pair: Pair,
    controller: WorkflowController,
    database: Database,
    rows: Rows,
) -> None:
    """Cancel always comes through; the approval before it, or not at all."""
    won = set()
    for number in range(ROUNDS):
        run_id = _gate(controller)
        approve, cancel = pair.race(number, ("approve_step", (run_id, "g")), ("cancel_workflow", (run_id,)))
        assert cancel is None
        assert rows.run(run_id).status == "cancelled"
        if approve is None:
            assert rows.states(run_id) == {"g": "completed", "z": "cancelled"}
            assert _decisions(database, run_id) == [("approved", "user")]
        else:
            assert isinstance(approve, CommandRefused)
            assert rows.states(run_id) == {"g": "cancelled", "z": "cancelled"}
            assert _decisions(database, run_id) == [("closed", "user")]
        won.add(approve is None)
    assert won == {True, False}  # else they have not raced


def test_approve_racing_approve(
    pair: Pair,
    controller: WorkflowController,
    database: Database,
    rows: Rows,
) -> None:
    for number in range(ROUNDS):
        run_id = _gate(controller)
        outcomes = pair.race(
            number,
            ("approve_step", (run_id, "g", None, "ann")),
            ("approve_step", (run_id, "g", None, "bob")),
        )
        winner = ("ann", "bob")[_one_won(outcomes, AlreadyDecided)]
        assert next(outcome.decided_by for outcome in outcomes if outcome is not None) == winner
        assert _decisions(database, run_id) == [("approved", winner)]
        assert rows.path(run_id, "g") == ["pending", "running", "waiting_approval", "running", "completed"]
        assert rows.step(run_id, "z").attempt == 1


@pytest.mark.parametrize("on_reject", ["cancel", "continue"])
def test_approve_racing_reject(
    pair: Pair,
    controller: WorkflowController,
    database: Database,
    rows: Rows,
    on_reject: str,
) -> None:
    for number in range(ROUNDS // 2):
        run_id = _gate(controller, on_reject=on_reject)
        outcomes = pair.race(
            number,
            ("approve_step", (run_id, "g", None, "ann")),
            ("reject_step", (run_id, "g", None, "bob")),
        )
        if _one_won(outcomes, AlreadyDecided) == 0:
            assert _decisions(database, run_id) == [("approved", "ann")]
            assert rows.states(run_id) == {"g": "completed", "z": "pending"}
        else:
            assert _decisions(database, run_id) == [("rejected", "bob")]
            ended = {"cancel": ("cancelled", "cancelled"), "continue": ("completed", "pending")}[on_reject]
            assert tuple(rows.states(run_id).values()) == ended


def test_a_deadline_racing_approve(
    pair: Pair,
    controller: WorkflowController,
    database: Database,
    rows: Rows,
) -> None:
    """The default is to reject: the run is cancelled by the deadline, or goes on by the approval."""
    sweeper = Sweeper(database, Settings())
    for number in range(ROUNDS):
        run_id = _gate(controller, deadline_s=3600)
        overdue = update(_requests).where(_requests.c.run_id == run_id).values(deadline_at=seconds_after(-1))
        database.transact(lambda connection, _, overdue=overdue: connection.execute(overdue))
        approve, swept = pair.race(number, ("approve_step", (run_id, "g", None, "ann")), sweeper.sweep)
        if approve is None:
            assert swept.decided == 0
            assert _decisions(database, run_id) == [("approved", "ann")]
            assert rows.run(run_id).status == "executing"
        else:
            assert isinstance(approve, AlreadyDecided)
            assert (approve.decided_by, swept.decided) == ("engine", 1)
            assert rows.run(run_id).status == "cancelled"


def test_retry_racing_retry(
    pair: Pair,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    for number in range(ROUNDS):
        run_id = _failed(controller, worker)
        outcomes = pair.race(
            number,
            ("retry_step", (run_id, "a", None, "ann")),
            ("retry_step", (run_id, "a", None, "bob")),
        )
        _one_won(outcomes, TransitionNotAllowed)
        row = rows.step(run_id, "a")
        assert (row.status, row.attempt) == ("running", 2)
        assert [dispatch.task_id for dispatch in worker.queue if dispatch.key == "a"] == [row.task_id]
        assert rows.run(run_id).open_steps == 3


def test_settle_racing_retry(
    pair: Pair,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    for number in range(ROUNDS):
        run_id = _failed(controller, worker)
        outcomes = pair.race(number, ("settle_step", (run_id, "a", 42)), ("retry_step", (run_id, "a")))
        if _one_won(outcomes, TransitionNotAllowed) == 0:
            assert (rows.states(run_id)["a"], rows.step(run_id, "a").result) == ("completed", 42)
            assert (rows.run(run_id).open_steps, rows.step(run_id, "z").open_deps) == (2, 1)
        else:
            assert (rows.states(run_id)["a"], rows.step(run_id, "a").result) == ("running", None)
            assert (rows.run(run_id).open_steps, rows.step(run_id, "z").open_deps) == (3, 2)


def test_resume_racing_resume_with_a_decision_and_an_intent_waiting(
    pair: Pair,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """What was asked while paused is done once."""
    for number in range(ROUNDS):
        plan = [{"key": "g", "approval": True}, step("a", on_failure="pause"), step("b")]
        worker.queue.clear()
        run_id = controller.enqueue_workflow(plan, task_description="x")
        worker.run_failing("a")
        controller.approve_step(run_id, "g")
        controller.retry_step(run_id, "a")
        worker.queue.clear()
        outcomes = pair.race(number, ("resume_workflow", (run_id,)), ("resume_workflow", (run_id,)))
        _one_won(outcomes, TransitionNotAllowed)
        assert worker.queued == ["a", "b"]
        assert rows.states(run_id) == {"g": "completed", "a": "running", "b": "pending"}
        assert rows.run(run_id).waiting_steps == 0


def test_pausing_a_step_racing_its_result(
    pair: Pair,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    """Paused first, the result is kept for the resume; completed first, there is nothing to pause."""
    for number in range(ROUNDS):
        worker.queue.clear()
        run_id = controller.enqueue_workflow([*steps("a"), step("z", "a")], task_description="x")
        ref = worker.claim("a")
        paused, report = pair.race(number, ("pause_step", (run_id, "a")), partial(worker.attempts.complete, ref, 9))
        if paused is None:
            assert report.value == "deferred"
            assert rows.states(run_id) == {"a": "paused", "z": "pending"}
            controller.resume_step(run_id, "a")
        else:
            assert isinstance(paused, TransitionNotAllowed)
            assert report.value == "recorded"
        assert (rows.states(run_id)["a"], rows.step(run_id, "a").result) == ("completed", 9)
        assert rows.step(run_id, "z").attempt == 1


def test_two_reruns_make_two_runs(
    pair: Pair,
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    for number in range(ROUNDS // 4):
        worker.queue.clear()
        old = controller.enqueue_workflow(steps("a"), task_description="x")
        worker.run_failing("a")
        runs = pair.race(number, ("rerun_workflow", (old,)), ("rerun_workflow", (old,)))
        assert len(set(runs)) == 2
        assert {rows.run(run_id).forked_from for run_id in runs} == {old}
