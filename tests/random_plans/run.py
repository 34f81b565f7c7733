"""One run of the suite: servers, a worker of each pool, people, one plan after the other, and then every check."""

from __future__ import annotations

import itertools
import logging
import re
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from interlock import Client
from interlock.migrations import upgrade
from tests.chaos.checks import read_record
from tests.chaos.subscribers import Subscribers
from tests.processes import wait_until
from tests.servers import PostgresServer, RedisServer
from tests.worker.deployment import Deployment

from .evidence import NO_RUN, case_of, other_findings
from .generator import draw
from .oracle import judge
from .people import Person
from .plans import PEOPLE
from .tasks import LEDGER
from .watch import LiveRun, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.celery_worker import CeleryWorker
    from tests.chaos.report import Board

    from .facts import Case
    from .plans import Plan

__all__ = ["Failing", "Options", "Summary", "search"]

_APP: Final = "tests.random_plans.tasks"
_SESSION: Final = "default"
_IN_FLIGHT: Final = 14
_TICK_S: Final = 0.05
_CAUGHT_UP_S: Final = 30.0
_REDISPATCH_S: Final = 8.0  # longer than messages wait in the queue of a busy machine
_GRACE_S: Final = 1.5
_SETTINGS: Final = {
    "INTERLOCK_LEASE_S": "8",
    "INTERLOCK_CANCEL_GRACE_S": f"{_GRACE_S:g}",
    "INTERLOCK_REDISPATCH_S": f"{_REDISPATCH_S:g}",
}
_POOLS: Final = {"prefork": 4, "threads": 12}
_NAMES: Final = ("ann", "bob", "cyd", "dee", "caretaker")
_ERROR: Final = re.compile(r"\((psycopg\.errors\.\w+\) [^\n]*)")


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    Attributes:
        seed: Any word.
        seconds: For how long plans are begun.
        plans: Only these, again and again; all of them, one after the other, where none is given.
        at_most: How many plans at most.
        in_flight: How many runs at once.
    """

    seed: str
    seconds: float
    plans: tuple[int, ...] = ()
    at_most: int | None = None
    in_flight: int = _IN_FLIGHT

    def command(self, plan: int | None = None) -> str:
        """What to type to run the same again, or one plan of it."""
        numbers = self.plans if plan is None else (plan,)
        limit = "" if self.at_most is None or plan is not None else f" AT_MOST={self.at_most}"
        only = (
            f" PLAN={numbers[0]}" if len(numbers) == 1 else f' PLAN="{" ".join(map(str, numbers))}"' if numbers else ""
        )
        seconds = self.seconds if plan is None else 60
        return f"make random-plans SECONDS={seconds:g} SEED={self.seed}{only}{limit}"


@dataclass(frozen=True, slots=True)
class Failing:
    """A run in which something is that must not be.

    Attributes:
        case: What is known of it.
        findings: What must not be.
        history: Its rows.
        stuck: What `explain` said, where it did not end.
    """

    case: Case
    findings: list[str]
    history: list[Any]
    stuck: Any


@dataclass(frozen=True, slots=True)
class Summary:
    """What was found.

    Attributes:
        options: What was run.
        failing: Runs, in the order in which they began.
        general: What must not be and belongs to no run.
        plans: How many plans were begun.
        statuses: How runs ended, reruns included.
        steps: How many steps and items they had, by state.
        bodies: How often a body ran.
        asked: How much people asked for, and how much of it was carried out.
        errors: What the workers logged of the database's errors, and how often.
        stood_s: For how long this process itself did nothing, at most.
        folder: Where the workers' logs and the ledgers are.
    """

    options: Options
    failing: list[Failing]
    general: list[str]
    plans: int
    statuses: Counter[str]
    steps: Counter[str]
    bodies: int
    asked: tuple[int, int]
    errors: Counter[str]
    stood_s: float
    folder: Path

    @property
    def sound(self) -> bool:
        """Whether all is as it must be."""
        return not self.failing and not self.general


def search(options: Options, board: Board) -> Summary:
    """Run it, saying how far it is."""
    folder = Path(tempfile.mkdtemp(prefix="interlock-random-plans-"))
    logging.basicConfig(filename=folder / "harness.log", level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    with ExitStack() as stack:
        found = _Search(options, folder, board, stack)
        with board:
            found.work()
        return found.summary()


class _Search:
    """The parts of one run of the suite."""

    def __init__(self, options: Options, folder: Path, board: Board, stack: ExitStack) -> None:
        self._options, self._folder, self._board = options, folder, board
        self._ledgers = folder / "ledgers"
        self._ledgers.mkdir()
        broker, events = stack.enter_context(RedisServer()), stack.enter_context(RedisServer())
        url = stack.enter_context(PostgresServer()).create_database("random_plans")
        upgrade(url)
        deployment = Deployment(broker, events, url, folder, settings=_SETTINGS)
        self._deployment = stack.enter_context(deployment)
        self._app = deployment.producer_app(interlock_redispatch_s=_REDISPATCH_S, interlock_cancel_grace_s=_GRACE_S)
        self._clients = [stack.enter_context(self._client(place)) for place in range(len(_NAMES))]
        self._people = [Person(client) for client in self._clients]
        self._watch = Watch(deployment.database, self._people, self._clients[0].explain)
        self._subscribers = Subscribers(
            deployment.database, events.url(0), (_SESSION,), poll_s=1.0, heard=self._watch.heard
        )
        self._workers = {pool: self._worker(pool, count) for pool, count in _POOLS.items()}
        self._begun = 0
        self._general: list[str] = []
        self._stood_s = 0.0

    def _client(self, place: int) -> Client:
        """The first half of the people, and the caretaker, have the database; the others the control queue."""
        name = _NAMES[place]
        if PEOPLE // 2 <= place < PEOPLE:
            return self._deployment.remote_client(20, session_id=_SESSION, actor=name)
        return Client(self._app, session_id=_SESSION, actor=name)

    def _worker(self, pool: str, count: int) -> CeleryWorker:
        args = ("--queues", f"celery,{pool}", "--pool", pool)
        return self._deployment.worker(pool, concurrency=count, args=args, app=_APP, **{LEDGER: str(self._ledgers)})

    # --- the run

    def work(self) -> None:
        """Begin plans until the time is over, then wait until every run has ended or is given up."""
        self._subscribers.start()
        self._subscribers.wait_until_begun()
        for person in self._people:
            person.start()
        numbers = self._numbers()
        until = last = time.monotonic() + self._options.seconds
        last = time.monotonic()
        while self._watch.live or time.monotonic() < until:
            self._stood_s = max(self._stood_s, time.monotonic() - last)
            last = time.monotonic()
            if last < until and len(self._watch.live) < self._options.in_flight:
                number = next(numbers, None)
                if number is None:
                    until = last
                else:
                    self._begin(draw(self._options.seed, number))
                    continue
            self._tick()
        self._catch_up()
        for person in self._people:
            person.stop()
            person.join()
        self._deployment.stop_workers()
        self._subscribers.stop()
        if self._subscribers.failure is not None:
            self._general.append(f"the subscriber ended: {self._subscribers.failure!r}")

    def _numbers(self) -> Iterator[int]:
        plans = self._options.plans
        return itertools.islice(itertools.cycle(plans) if plans else itertools.count(), self._options.at_most)

    def _begin(self, plan: Plan) -> None:
        family = f"{plan.number}-{self._begun}"
        self._begun += 1
        client = self._clients[PEOPLE - 1 if plan.remote else 0]
        run_id = client.enqueue(plan.workflow, plan.input(family), idempotency_key=family)
        self._watch.add(LiveRun(plan, run_id, family))

    def _tick(self) -> None:
        self._watch.look_after()
        for pool, worker in self._workers.items():
            if not worker.running:
                self._general.append(f"the {pool} worker ended by itself, exit code {worker.returncode}")
                worker.start()
        runs = list(self._watch.runs.values())
        over = sum(run.over for run in runs)
        self._board.show(f"plans begun {self._begun}, runs over {over}/{len(runs)}")
        time.sleep(_TICK_S)

    def _catch_up(self) -> None:
        """The subscriber hears everything that is stored; what it has not heard by then is found missing."""
        with self._deployment.database.reading() as connection:
            stored = connection.scalar(text("SELECT count(*) FROM state_history"))

        def heard() -> bool:
            return sum(map(len, list(self._subscribers.received.values()))) >= stored

        try:
            wait_until(heard, _CAUGHT_UP_S, "the subscriber has heard everything")
        except TimeoutError as error:
            self._general.append(str(error))

    # --- what came of it

    def summary(self) -> Summary:
        """Check everything, and count."""
        record = read_record(self._deployment.database)
        logs = [worker.output for worker in self._workers.values()]
        others = other_findings(self._deployment.database, record, self._subscribers.received, logs)
        runs = list(self._watch.runs.values())
        failing = []
        bodies = 0
        for run in runs:
            case = case_of(run, record, self._ledgers)
            bodies += sum(map(len, case.bodies.values()))
            found = list(dict.fromkeys([*run.findings, *judge(case), *others.pop(run.run_id, [])]))
            if found:
                failing.append(Failing(case, found, list(record.history.get(run.run_id, ())), run.stuck))
        unknown = [f"{run_id}: {text}" for run_id, texts in others.items() if run_id != NO_RUN for text in texts]
        said = [each for run in runs for each in run.said]
        return Summary(
            self._options,
            failing,
            [*self._general, *others.get(NO_RUN, []), *unknown],
            self._begun,
            Counter(row.status for row in record.runs.values()),
            Counter(step.status for steps in record.steps.values() for step in steps),
            bodies,
            (len(said), sum(each.accepted for each in said)),
            Counter(said for log in logs for said in _ERROR.findall(log)),
            self._stood_s,
            self._folder,
        )
