"""One run of chaos from the servers' start to the last check."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from interlock import Client
from interlock.core.database.tables import StateHistory, WorkflowRun
from interlock.migrations import upgrade
from tests.processes import wait_until
from tests.servers import PostgresServer, RedisServer
from tests.worker.deployment import Deployment

from . import ledger
from .checks import Evidence, read_record, violations
from .injection import Injector
from .load import Producer
from .people import Operator
from .plans import SESSIONS, make_plans, roll_call
from .report import Board, Counts, Summary
from .schedule import make_schedule, worker_names
from .subscribers import Subscribers
from .tasks import LEDGER
from .verdict import summarize, write_histories

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from interlock.core.events import StateChange
    from tests.celery_worker import CeleryWorker

    from .plans import Plan
    from .schedule import Fault

__all__ = ["Options", "run"]

_TICK_S = 0.05
_ENQUEUE_SHARE = 0.9  # of the time, so that the last workflows meet faults, too
_STILL_S = 120.0  # after the last fault, with no step completed: what has not ended then is stranded
_END_S = 1800.0  # for what is left in all
_CAUGHT_UP_S = 60.0
_ROLL_CALLS, _EACH = 5, 6
_STATES_THAT_END = ("completed", "failed", "cancelled")
_APP = "tests.chaos.tasks"


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    Attributes:
        seed: Any word.
        minutes: How long faults are injected.
        workflows: How many, of ten steps each.
        workers: How many workers, of two processes each.
        every_s: From one fault to the next, on average.
    """

    seed: str
    minutes: float
    workflows: int
    workers: int = 3
    every_s: float = 4.0

    @property
    def command(self) -> str:
        """What to type to run the same again."""
        more = "" if self.workers == 3 and self.every_s == 4.0 else f" WORKERS={self.workers} EVERY={self.every_s:g}"
        return f"make chaos SEED={self.seed} MINUTES={self.minutes:g} WORKFLOWS={self.workflows}{more}"


def run(options: Options, board: Board) -> Summary:
    """Run it, print what happens, and return the figures."""
    plans = make_plans(options.seed, options.workflows)
    schedule = make_schedule(
        options.seed, duration_s=options.minutes * 60, every_s=options.every_s, workers=options.workers
    )
    board.line(options.command)
    board.line(f"{len(schedule)} faults, {len(plans)} workflows:")
    for fault in schedule:
        board.line(f"  {fault}")
    folder = Path(tempfile.mkdtemp(prefix="interlock-chaos-"))
    # What this process's own clients and subscribers say of outages is no output of the command.
    logging.basicConfig(filename=folder / "harness.log", level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    with ExitStack() as stack:
        chaos = _Chaos(options, plans, schedule, folder, board, stack)
        with board:
            chaos.work()
        summary = chaos.judge()
    summary.show(board)
    if summary.violations or summary.oddities:
        board.line(f"logs, ledger and histories: {folder}")
    else:
        shutil.rmtree(folder)
    return summary


class _Chaos:
    """The parts of one run."""

    def __init__(
        self,
        options: Options,
        plans: Sequence[Plan],
        schedule: Sequence[Fault],
        folder: Path,
        board: Board,
        stack: ExitStack,
    ) -> None:
        self._options, self._plans, self._schedule, self._board = options, plans, schedule, board
        self._folder, self._ledger = folder, folder / "ledger"
        servers = {
            "broker": stack.enter_context(RedisServer()),
            "events": stack.enter_context(RedisServer()),
            "database": stack.enter_context(PostgresServer(durable=True)),
        }
        url = servers["database"].create_database("chaos")
        upgrade(url)
        deployment = Deployment(servers["broker"], servers["events"], url, folder)
        self._deployment = stack.enter_context(deployment)
        remote = {each: stack.enter_context(deployment.remote_client(session_id=each)) for each in SESSIONS}
        self._direct = {
            each: stack.enter_context(Client(deployment.app, session_id=each, actor="producer")) for each in SESSIONS
        }
        self._operators = {each: Operator(client) for each, client in remote.items()}
        self._subscribers = Subscribers(
            deployment.database, deployment.events.url(0), SESSIONS, poll_s=1.0, heard=self._heard
        )
        self._producer = Producer(
            plans,
            direct=self._direct,
            remote=remote,
            spread_s=options.minutes * 60 * _ENQUEUE_SHARE,
            enqueued=lambda plan, run_id: self._operators[plan.session_id].treat(plan, run_id),
        )
        names = worker_names(options.workers)
        workers = {name: deployment.worker(name, app=_APP, **{LEDGER: str(self._ledger)}) for name in names}
        self._injector = Injector(schedule, workers, servers, board.line)
        self._duration_s = 0.0
        self._trouble: list[str] = []
        self._roll_calls: dict[str, Plan] = {}

    # --- the run

    def work(self) -> None:
        """Load and faults, until everything has ended or the time is over."""
        began = time.monotonic()
        self._subscribers.start()
        self._subscribers.wait_until_begun()
        for thread in (*self._operators.values(), self._producer):
            thread.start()
        while self._producer.is_alive() or not self._injector.over:
            self._tick()
        self._await_end()
        self._duration_s = time.monotonic() - began
        self._trouble += self._unfinished()
        self._trouble += self._call_the_roll()
        self._wait_for_subscribers()
        for operator in self._operators.values():
            operator.stop()
            operator.join()
        self._trouble += self._injector.stop()
        self._subscribers.stop()
        self._trouble += [
            f"{thread.name}: {type(thread.failure).__name__}: {thread.failure}"
            for thread in (self._producer, self._subscribers)
            if thread.failure is not None
        ]

    def _await_end(self) -> None:
        """Wait as long as anything moves; how much is left behind the last fault depends on the machine."""
        began = since = time.monotonic()
        completed = -1
        while not self._all_ended() and time.monotonic() < min(since + _STILL_S, began + _END_S):
            self._tick()
            if self._subscribers.completed_steps != completed:
                completed, since = self._subscribers.completed_steps, time.monotonic()

    def _tick_until(self, condition: Callable[[], object], timeout_s: float) -> bool:
        """Whether it came true in time; what ends by itself is started again meanwhile."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._tick()
        return True

    def _tick(self) -> None:
        self._injector.tick()
        self._board.show(
            Counts(
                workflows=len(self._plans),
                enqueued=len(self._producer.run_ids),
                ended=len(self._subscribers.ended),
                steps=self._subscribers.completed_steps,
                faults=len(self._injector.injected),
                planned=len(self._schedule),
            ),
        )
        time.sleep(_TICK_S)

    def _heard(self, change: StateChange) -> None:
        if change.step_key is not None and change.to_state == "waiting_approval":
            self._operators[change.session_id].asked(change.workflow_id, str(change.step_key))

    def _all_ended(self) -> bool:
        """Asked of the subscribers as long as they have not seen it, because that costs nothing; then of the database."""
        if any(operator.busy for operator in self._operators.values()):
            return False
        return len(self._subscribers.ended) >= len(self._plans) or not self._live()

    def _live(self) -> list[str]:
        runs = WorkflowRun.__table__
        with self._deployment.database.reading() as connection:
            query = select(runs.c.id).where(runs.c.status.not_in(_STATES_THAT_END))
            return list(connection.scalars(query))

    def _unfinished(self) -> Iterator[str]:
        for run_id in self._live():
            run = WorkflowRun.__table__
            with self._deployment.database.reading() as connection:
                session_id = connection.scalar(select(run.c.session_id).where(run.c.id == run_id))
            with Client(self._deployment.app, session_id=session_id) as client:
                yield f"stranded: {run_id}: {client.explain(run_id)}"

    def _call_the_roll(self) -> list[str]:
        """Every worker takes work again: one that lives and takes none would be missed by nobody as long as others do."""
        workers = self._injector.workers
        self._tick_until(lambda: all(map(_is_ready, workers.values())), _CAUGHT_UP_S)
        missing = {worker.node: name for name, worker in workers.items()}
        for number in range(_ROLL_CALLS):
            plan = roll_call(number, _EACH * len(workers))
            self._roll_calls[plan.name] = plan
            run_id = self._direct[plan.session_id].enqueue(plan.workflow, idempotency_key=plan.name)
            self._producer.run_ids[plan.name] = run_id
            if not self._tick_until(lambda run_id=run_id: run_id in self._subscribers.ended, _CAUGHT_UP_S):
                return [f"the roll call {run_id} has not ended within {_CAUGHT_UP_S:g} s"]
            for row in self._deployment.history(run_id):
                missing.pop(row.transitioned_by, None)
            if not missing:
                return []
        return [f"{name} runs and takes no work" for name in missing.values()]

    def _wait_for_subscribers(self) -> None:
        history = StateHistory.__table__
        with self._deployment.database.reading() as connection:
            rows = connection.scalar(select(func.count()).select_from(history)) or 0

        def received() -> int:
            return sum(len(changes) for changes in list(self._subscribers.received.values()))

        try:
            wait_until(lambda: received() >= rows or self._subscribers.failure, _CAUGHT_UP_S, "all changes")
        except TimeoutError:
            self._trouble.append(f"subscribers: {received()} of {rows} changes within {_CAUGHT_UP_S:g} s")

    def evidence(self) -> Evidence:
        """What everybody but the database knows."""
        return Evidence(
            plans={plan.name: plan for plan in self._plans},
            roll_calls=self._roll_calls,
            run_ids=self._producer.run_ids,
            ledger=ledger.read(self._ledger),
            received=self._subscribers.received,
            operators=list(self._operators.values()),
        )

    def judge(self) -> Summary:
        """Check everything, and count."""
        record, evidence = read_record(self._deployment.database), self.evidence()
        found = [*self._trouble, *violations(self._deployment.database, record, evidence)]
        if found:
            write_histories(record, self._folder / "histories")
        return summarize(
            record,
            evidence,
            self._injector,
            command=self._options.command,
            repeated=self._producer.repeated + sum(operator.repeated for operator in self._operators.values()),
            duration_s=self._duration_s,
            violations=found,
        )


def _is_ready(worker: CeleryWorker) -> bool:
    """Whether it has said so since it was last started."""
    return f"{worker.node} ready." in worker.output[worker._earlier_output :]
