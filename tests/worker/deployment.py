"""Everything a deployment consists of, and the ledger and gates by which tests see and steer the bodies of steps."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import psutil
from celery import Celery
from redis import Redis
from sqlalchemy import select

from interlock import Client, Step, Workflow
from interlock.core import WorkflowController, open_database
from interlock.core.database.tables import StateHistory, WorkflowStep
from interlock.core.settings import Settings
from tests.servers import ROOT, CeleryWorker, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from interlock.core.database.database import Database
    from tests.servers import RedisServer

APP = "tests.worker.tasks_app"
DEADLINE_S = 20.0

COMMON_SLOTS = 4
"""How many bodies the worker that modules share runs at once."""

#: For workers whose claims and graces are not to end by themselves, however busy the machine is.
CALM = {"INTERLOCK_LEASE_S": "10", "INTERLOCK_CANCEL_GRACE_S": "5"}
#: For workers of tests that wait for the end of a lease or of a grace.
BRIEF = {"INTERLOCK_LEASE_S": "2", "INTERLOCK_CANCEL_GRACE_S": "1.5"}
BRIEF_LEASE_S = float(BRIEF["INTERLOCK_LEASE_S"])

_SETTINGS = {
    **BRIEF,
    "INTERLOCK_HEARTBEAT_S": "0.5",
    "INTERLOCK_SWEEP_S": "0.3",
    "INTERLOCK_REDISPATCH_S": "3",
    "INTERLOCK_WATCH_POLL_S": "1",
}
_steps = WorkflowStep.__table__
_history = StateHistory.__table__


def task_name(name: str) -> str:
    """The registered name of a task of `tasks_app`."""
    return f"{APP}.{name}"


class Ledger:
    """What bodies have done, and the gates at which they wait."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_url(url, decode_responses=True)

    def of(self, step_id: str) -> list[str]:
        """What the bodies of a step noted, over all attempts."""
        return list(self._redis.lrange(f"ledger:{step_id}", 0, -1))

    def pids(self, step_id: str) -> list[int]:
        """In which processes."""
        entries = (entry.split() for entry in self._redis.lrange("ledger", 0, -1))
        return [int(words[-1]) for words in entries if words[0] == step_id]

    def count(self, what: str) -> int:
        """How often anybody noted this."""
        return sum(f" {what} " in entry for entry in self._redis.lrange("ledger", 0, -1))

    def effects(self) -> list[dict[str, Any]]:
        """What `bodies.recorded` wrote of every body, in order: step_id, task_id, pid, what (begin, end, raise), result."""
        return [json.loads(entry) for entry in self._redis.lrange("effects", 0, -1)]

    @contextmanager
    def tampered(self) -> Iterator[list[dict[str, Any]]]:
        """The effects, to be changed for the length of a block: what is in the list is what `effects` returns."""
        before = self.effects()
        changed = list(before)
        self.effects = lambda: changed  # type: ignore[method-assign] # undone below
        try:
            yield changed
        finally:
            del self.effects

    def wait_for(self, step_id: str, what: str, times: int = 1) -> None:
        """Wait until a step's bodies have noted this."""
        wait_until(
            lambda: self.of(step_id).count(what) >= times,
            DEADLINE_S,
            f"{times} times {what!r} in {step_id}; it has {self.of(step_id)}",
        )

    def empty(self) -> None:
        """Forget all that was noted, and shut every gate."""
        self._redis.flushdb()

    def open_gate(self, name: str) -> None:
        """Let every body pass that waits there or comes later."""
        self._redis.rpush(f"gate:{name}", "open")

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


class Deployment:
    """Servers, a database, workers, and a producer's view of them.

    Args:
        broker: The server of the broker and of Celery's results.
        events: The server of events.
        database_url: A migrated database.
        folder: Where logs and temporary files go.
        ledger: The server of the ledger and the gates; without it, the broker's.
        app: What workers run.
        settings: What every worker is told, such as `CALM`.
        answer_s: How long a client without a database waits for an answer.
    """

    def __init__(
        self,
        broker: RedisServer,
        events: RedisServer,
        database_url: str,
        folder: Path,
        *,
        ledger: RedisServer | None = None,
        app: str = APP,
        settings: Mapping[str, str] = BRIEF,
        answer_s: float = 5,
    ) -> None:
        self.broker = broker
        self._settings = {**_SETTINGS, **settings}
        self._answer_s = answer_s
        self.app_path = app
        self.events = events
        self.database_url = database_url
        self.folder = folder
        self._ledger_url = (ledger or broker).url(3)
        self.ledger = Ledger(self._ledger_url)
        self.database: Database = open_database(database_url)
        self.workers: list[CeleryWorker] = []
        self._stack = ExitStack()
        self.app = self.producer_app()
        self.client = self._stack.enter_context(Client(self.app, actor="tester"))

    @property
    def environment(self) -> dict[str, str]:
        """What a worker is told."""
        return {
            **self._settings,
            "INTERLOCK_BROKER_URL": self.broker.url(0),
            "INTERLOCK_REDIS_URL": self.events.url(0),
            "INTERLOCK_DATABASE_URL": self.database_url,
            "TEST_RESULTS_URL": self.broker.url(2),
            "TEST_LEDGER_URL": self._ledger_url,
            "PYTHONPATH": str(ROOT),
        }

    def producer_app(self, **settings: Any) -> Celery:
        """A Celery app that knows the addresses and no task; closed at the end."""
        app = Celery("producer", broker=self.broker.url(0), backend=self.broker.url(2), set_as_current=False)
        app.conf.update(
            interlock_database_url=self.database_url,
            interlock_redis_url=self.events.url(0),
            interlock_watch_poll_s=1,
            interlock_check_tasks=False,  # shared tasks of other test modules make it know some, and not these
            interlock_redispatch_s=3,
            interlock_lease_s=float(self._settings["INTERLOCK_LEASE_S"]),
            interlock_command_timeout_s=10,
        )
        app.conf.update(settings)
        self._stack.callback(app.close)
        return app

    def remote_client(self, command_timeout_s: float | None = None, **options: Any) -> Client:
        """A client that has the broker and Redis, and no database."""
        timeout_s = self._answer_s if command_timeout_s is None else command_timeout_s
        settings = Settings.load(None, {}, command_timeout_s=timeout_s, watch_poll_s=1)
        urls = {"broker_url": self.broker.url(0), "redis_url": self.events.url(0)}
        return Client(**{"settings": settings, "actor": "remote", **urls, **options})

    def worker(
        self,
        name: str,
        *,
        concurrency: int = 2,
        args: Iterable[str] = (),
        app: str | None = None,
        cwd: Path = ROOT,
        **environment: str,
    ) -> CeleryWorker:
        """Start a worker and wait until it is ready, its engine too."""
        temporary = self.folder / f"{name}-tmp"
        temporary.mkdir()
        worker = CeleryWorker(
            app or self.app_path,
            log=self.folder / f"{name}.log",
            concurrency=concurrency,
            env={**self.environment, "TMPDIR": str(temporary), **environment},
            args=args,
            cwd=cwd,
        )
        self.workers.append(worker)
        return worker.start()

    def notes_folder(self, name: str) -> Path:
        """Where a worker's MAIN leaves the notes for its children."""
        (folder,) = (self.folder / f"{name}-tmp").glob("interlock-*")
        return folder

    def stop_workers(self, but: Sequence[CeleryWorker] = ()) -> None:
        """Shut down warmly whatever still runs, all at once."""
        stopping = [worker for worker in self.workers if worker.running and worker not in but]
        for worker in stopping:
            worker.ask_to_end()
        for worker in stopping:
            worker.wait_for_end()

    @contextmanager
    def lent(self, folder: Path, worker: CeleryWorker) -> Iterator[Self]:
        """For a module among several that use it: with an empty ledger and folder, and at the end with `worker` alone."""
        self.folder = folder
        self.ledger.empty()
        self.workers[:] = [worker]
        yield self
        self.stop_workers(but=[worker])

    def controller(self, session: Session) -> WorkflowController:
        """A controller in a transaction of the caller's."""
        return WorkflowController(session, self.client.session_id, settings=self.client.settings)

    # --- runs

    def enqueue(self, *steps: Step, name: str = "test", **options: Any) -> str:
        """Enqueue a workflow of these steps."""
        return self.client.enqueue(Workflow(name, "Show that it works.", steps), **options)

    def run(self, *steps: Step, **options: Any) -> tuple[str, str]:
        """Enqueue and wait; returns the run's id and how it ended."""
        run_id = self.enqueue(*steps, **options)
        return run_id, self.client.wait(run_id, timeout_s=DEADLINE_S)

    def steps(self, run_id: str) -> dict[str, Row[Any]]:
        """The rows of a run's steps by key."""
        with self.database.reading() as connection:
            rows = connection.execute(select(_steps).where(_steps.c.run_id == run_id).order_by(_steps.c.position))
            return {row.key: row for row in rows}

    def step(self, run_id: str, key: str = "a") -> Row[Any]:
        """One step's row."""
        return self.steps(run_id)[key]

    def step_id(self, run_id: str, key: str = "a") -> str:
        """One step's id."""
        return str(self.step(run_id, key).id)

    def history(self, run_id: str, key: str | None = None) -> list[Row[Any]]:
        """History rows of a run, or of one of its steps, in order."""
        query = select(_history).where(_history.c.workflow_id == run_id).order_by(_history.c.seq)
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
        return [row for row in rows if key is None or row.step_key == key]

    def moves(self, run_id: str, key: str = "a") -> list[str]:
        """The states that a step went through."""
        return [row.to_state for row in self.history(run_id, key)]

    def wait_for_status(self, run_id: str, status: str, key: str | None = None) -> None:
        """Wait until a run, or one of its steps, is in a state."""

        def state() -> str:
            return str(self.client.status(run_id)["status"] if key is None else self.step(run_id, key).status)

        wait_until(lambda: state() == status, DEADLINE_S, f"{key or run_id} is {status}, not {state()}")

    def begun(self, run_id: str, keys: Sequence[str] = ("a",), what: str = "begin") -> dict[str, str]:
        """Wait until the bodies of these steps have begun; returns the steps' ids by key."""
        ids = {key: str(row.id) for key, row in self.steps(run_id).items() if key in keys}
        for step_id in ids.values():
            self.ledger.wait_for(step_id, what)
        return ids

    # --- life

    def on_exit(self, act: Callable[[], object]) -> None:
        """Call `act` at the end, while servers and database are still there."""
        self._stack.callback(act)

    def __enter__(self) -> Self:
        """Return it; nothing is started yet."""
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *rest: object) -> None:
        """End everything that was started."""
        for worker in self.workers:
            worker.kill()
        self._stack.close()
        self.ledger.close()
        self.database.dispose()


@contextmanager
def gate(deployment: Deployment, name: str) -> Iterator[str]:
    """A gate that is open at the end, whatever happens, so that no body outlives its test."""
    try:
        yield name
    finally:
        deployment.ledger.open_gate(name)


def held(key: str, gate_name: str, *args: Any, task: str = "hold", after: Sequence[str] = (), **options: Any) -> Step:
    """A step that waits at a gate."""
    return Step(key, task_name(task), (gate_name, *args), after=after, **options)


def engine_pid(worker: CeleryWorker) -> int:
    """The process id of a worker's engine; 0 while there is none."""
    for child in psutil.Process(worker.pid).children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "interlock.worker.engine" in child.cmdline():
                return child.pid
    return 0
