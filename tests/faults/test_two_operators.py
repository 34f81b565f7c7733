"""Two operators, or an operator and a worker, at the same workflow at the same moment: one legal order, and the loser is told.

Processes that meet at a barrier, with a database connection each; `tests/races` has every verb against every other.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from interlock.core import WorkflowController, open_database
from interlock.core.settings import Settings
from interlock.core.verify import Verification, verify
from tests.core.checker import faults
from tests.core.rows import Rows, step
from tests.core.worker_double import WorkerDouble
from tests.races.racers import Call, Outcome, Racers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from interlock.core import Database
    from interlock.core.attempts.attempts import AttemptRef
    from tests.faults.conftest import FaultReport
    from tests.servers import PostgresDatabases

pytestmark = pytest.mark.faults

ROUNDS: Final = 100
REFUSED: Final = "TransitionNotAllowed"


@pytest.fixture(scope="module")
def url(postgres_databases: PostgresDatabases, postgres_template: str) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database."""
    with postgres_databases.fresh(postgres_template) as url:
        yield url


@pytest.fixture(scope="module")
def racers(url: str) -> Iterator[Racers]:
    """Two processes, kept over all the tests."""
    with Racers(url, 2) as racers:
        yield racers


class Scene:
    """Runs to race for, and the checker behind the race."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.rows = Rows(database)
        self.worker = WorkerDouble(database, Settings())

    def held(self) -> tuple[str, AttemptRef]:
        """A run whose only step is held, and who holds it."""
        self.worker.queue.clear()
        run_id = self._enqueue(step("a"))
        return run_id, self.worker.claim("a")

    def paused(self) -> tuple[str, None]:
        """A paused run."""
        run_id = self._enqueue(step("a"), step("b"))
        with self.database.session() as session:
            WorkflowController(session, settings=Settings()).pause_workflow(run_id)
        return run_id, None

    def asking(self) -> tuple[str, None]:
        """A run that waits for an approval."""
        return self._enqueue({"key": "gate", "approval": True}, step("z", "gate")), None

    def _enqueue(self, *plan: dict[str, object]) -> str:
        with self.database.session() as session:
            controller = WorkflowController(session, settings=Settings())
            return controller.enqueue_workflow(list(plan), task_description="x")

    def lost(self) -> int:
        """What the checkers find wrong."""
        return len(faults(self.database)) + len(list(verify(self.database, Verification())))


@pytest.fixture
def scene(url: str) -> Iterator[Scene]:
    """The database from the operators' side."""
    database = open_database(url)
    yield Scene(database)
    database.dispose()


def _race(racers: Racers, scene: Scene, make: str, first: str, second: str) -> dict[str, list[Outcome]]:
    """Race two calls for as many runs as there are rounds; returns what came of both by run."""
    runs = [getattr(scene, make)() for _ in range(ROUNDS)]

    def call(name: str, run_id: str, ref: AttemptRef | None) -> Call:
        if name == "complete":
            return Call("complete", (ref,))
        if name == "approve":
            return Call("approve", (run_id, "gate"))
        return Call("verb", (name, run_id))

    rounds = racers.rounds(ROUNDS, lambda n: (call(first, *runs[n]), call(second, *runs[n])))
    return {run_id: outcomes for (run_id, _), outcomes in zip(runs, rounds, strict=True)}


def test_pause_against_complete(racers: Racers, scene: Scene, fault_report: FaultReport) -> None:
    """F21: paused first, the result is kept for the resume; completed first, there is nothing to pause any more."""
    for run_id, (pause, complete) in _race(racers, scene, "held", "pause", "complete").items():
        expected = ("paused", "paused") if pause.won else ("completed", "completed")
        assert (pause.error, complete.answer) in {(None, "deferred"), (REFUSED, "recorded")}
        assert (scene.rows.run(run_id).status, scene.rows.states(run_id)["a"]) == expected
    lost = scene.lost()
    fault_report(fault="F21", injected="pause against complete", runs=ROUNDS, lost=lost)
    assert lost == 0


def test_cancel_against_complete(racers: Racers, scene: Scene, fault_report: FaultReport) -> None:
    """F21: cancelled or completed, and the history ends with it."""
    for run_id, (cancel, complete) in _race(racers, scene, "held", "cancel", "complete").items():
        expected = "cancelled" if cancel.won else "completed"
        assert (cancel.error, complete.answer) in {(None, "stale"), (REFUSED, "recorded")}
        assert (scene.rows.run(run_id).status, scene.rows.path(run_id)[-1]) == (expected, expected)
    lost = scene.lost()
    fault_report(fault="F21", injected="cancel against complete", runs=ROUNDS, lost=lost)
    assert lost == 0


def test_approve_against_cancel(racers: Racers, scene: Scene, fault_report: FaultReport) -> None:
    """F21: the cancel comes through; the approval before it, or not at all."""
    for run_id, (approve, cancel) in _race(racers, scene, "asking", "approve", "cancel").items():
        assert (approve.error, cancel.error) in {(None, None), ("CommandRefused", None)}
        gate = "completed" if approve.won else "cancelled"
        assert scene.rows.states(run_id) == {"gate": gate, "z": "cancelled"}
        assert scene.rows.run(run_id).status == "cancelled"
    lost = scene.lost()
    fault_report(fault="F21", injected="approve against cancel", runs=ROUNDS, lost=lost)
    assert lost == 0


def test_resume_against_resume(racers: Racers, scene: Scene, fault_report: FaultReport) -> None:
    """F21: one resumes and dispatches; the other is told that there is nothing to resume."""
    for run_id, outcomes in _race(racers, scene, "paused", "resume", "resume").items():
        assert Counter(outcome.error for outcome in outcomes) == {None: 1, REFUSED: 1}
        assert sorted(outcomes[0].sent + outcomes[1].sent) == sorted(
            scene.rows.step(run_id, key).task_id for key in "ab"
        )
        assert scene.rows.path(run_id)[-2:] == ["paused", "executing"]
    lost = scene.lost()
    fault_report(fault="F21", injected="resume against resume", runs=ROUNDS, lost=lost)
    assert lost == 0
