"""Processes that act on one database at the same moment.

They are started once and kept over all rounds. Each has a database connection of its own, waits at a barrier with the others
and then makes its call, so that the calls meet inside PostgreSQL.
"""

from __future__ import annotations

import multiprocessing
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from interlock.core import Database, WorkflowController, open_database
from interlock.core.attempts.attempts import AttemptRef, Attempts
from interlock.core.attempts.outcomes import Failure
from interlock.core.errors import InterlockError
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Call:
    """What one racer is to do: a verb of `Racer`, with its arguments, and what it does before the start."""

    verb: str
    arguments: tuple[Any, ...]
    before: tuple[str, tuple[Any, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call.

    Attributes:
        answer: What it returned, as text.
        error: Class of the typed error that it raised.
        sent: Task ids of the messages that its commit caused.
    """

    answer: str | None
    error: str | None
    sent: list[str] = field(default_factory=list)

    @property
    def won(self) -> bool:
        """Whether the call moved something."""
        return self.error is None and self.answer in ("None", "recorded", "granted")


class Racer:
    """What runs in one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._settings = Settings()
        self._attempts = Attempts(database, self._settings)
        self.sent: list[str] = []
        database.after_commit.append(
            lambda effects: self.sent.extend(dispatch.task_id for dispatch in effects.dispatches),
        )

    def claim(self, ref: AttemptRef) -> str:
        """Claim an attempt."""
        claim = self._attempts.claim(ref, f"worker@{ref.token}")
        return "granted" if claim.granted else claim.reason

    def complete(self, ref: AttemptRef) -> str:
        """Report a result."""
        return self._attempts.complete(ref, {"token": ref.token}).value

    def fail(self, ref: AttemptRef) -> str:
        """Report a failure."""
        return self._attempts.fail(ref, Failure("error", "ValueError: no")).value

    def verb(self, name: str, run_id: str) -> None:
        """Call a verb of the controller."""
        with self._database.session() as session:
            getattr(WorkflowController(session, settings=self._settings), f"{name}_workflow")(run_id)

    def approve(self, run_id: str, key: str) -> None:
        """Approve a step."""
        with self._database.session() as session:
            WorkflowController(session, settings=self._settings).approve_step(run_id, key)

    def retry(self, run_id: str, key: str) -> None:
        """Have a failed step run again."""
        with self._database.session() as session:
            WorkflowController(session, settings=self._settings).retry_step(run_id, key)

    def enqueue(self, key: str) -> str:
        """Enqueue a run of one step under an idempotency key; the answer is its id."""
        with self._database.session() as session:
            controller = WorkflowController(session, settings=self._settings)
            plan = [{"key": "a", "task": "tasks.a"}]
            return controller.enqueue_workflow(plan, task_description="x", idempotency_key=key)

    def sweep(self) -> str:
        """Sweep once."""
        return str(Sweeper(self._database, self._settings).sweep())

    def act(self, call: Call, barrier: Barrier) -> Outcome:
        """Do what comes before, wait for the others, and make the call."""
        if call.before is not None:
            getattr(self, call.before[0])(*call.before[1])
        self.sent.clear()
        barrier.wait(DEADLINE_S)
        try:
            answer = getattr(self, call.verb)(*call.arguments)
        except InterlockError as refused:
            return Outcome(None, type(refused).__name__, list(self.sent))
        except Exception:  # noqa: BLE001 - the test shows it; this process is needed for the next round
            return Outcome(None, traceback.format_exc(), list(self.sent))
        return Outcome(str(answer), None, list(self.sent))


def _serve(url: str, pipe: Connection, barriers: dict[int, Barrier]) -> None:
    database = open_database(url)
    racer = Racer(database)
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        call, runners = order
        pipe.send(racer.act(call, barriers[runners]))
    database.dispose()


class Racers:
    """A field of processes for one database."""

    def __init__(self, url: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._barriers = {runners: context.Barrier(runners) for runners in (2, count)}
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(url, theirs, self._barriers), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Self:
        """Wait until all have connected."""
        for pipe in self._pipes:
            self._receive(pipe)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End them."""
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(DEADLINE_S)
            process.close()

    def race(self, *calls: Call) -> list[Outcome]:
        """Make the calls at once, one process each, and return what came of them in the same order."""
        pipes = self._pipes[: len(calls)]
        for pipe, call in zip(pipes, calls, strict=True):
            pipe.send((call, len(calls)))
        return [self._receive(pipe) for pipe in pipes]

    def rounds(self, count: int, calls: Callable[[int], tuple[Call, ...]]) -> list[list[Outcome]]:
        """Race `count` times; every other time the calls change processes, so that no side has the quicker one."""
        outcomes = []
        for number in range(count):
            made = calls(number)
            if number % 2:
                outcomes.append(self.race(*reversed(made))[::-1])
            else:
                outcomes.append(self.race(*made))
        return outcomes

    @staticmethod
    def _receive(pipe: Connection) -> Any:
        if not pipe.poll(DEADLINE_S):
            message = f"a racer gave no answer within {DEADLINE_S:g} s"
            raise TimeoutError(message)
        return pipe.recv()
