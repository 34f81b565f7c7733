"""The fault suite: a deployment with short leases for each module, and the checker behind each test.

Modules that need another database or other servers define a fixture `deployment` of their own, which calls `checker_of`
before it yields; the checker uses whichever a test sees.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4
from weakref import WeakKeyDictionary

import pytest

from tests.fault_plans import FaultPlan, FaultRule
from tests.faults.soundness import Soundness
from tests.processes import wait_until
from tests.results import keep_result
from tests.servers import RedisServer
from tests.worker.deployment import DEADLINE_S, Deployment, gate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.celery_worker import CeleryWorker
    from tests.servers import PostgresDatabases

APP = "tests.faults.steps_app"

#: For workers whose leases are not to end by themselves, however busy the machine is.
LONG_LEASE_S = "15"

_reports = pytest.StashKey[list[dict[str, Any]]]()
_checkers: WeakKeyDictionary[Deployment, Soundness] = WeakKeyDictionary()


class FaultPlans(Protocol):
    """Makes a plan for workers that are started with its `environment()`."""

    def __call__(self, *rules: FaultRule) -> FaultPlan: ...


@dataclass(frozen=True, slots=True)
class Victim:
    """A worker with a queue of its own, which obeys a plan.

    Attributes:
        worker: The worker.
        queue: The only queue that it consumes.
        plan: What it obeys.
    """

    worker: CeleryWorker
    queue: str
    plan: FaultPlan

    def struck(self, place: str, times: int = 1) -> float:
        """Wait until the fault has happened; returns the time, in monotonic seconds."""
        wait_until(lambda: self.plan.hits(place) >= times, DEADLINE_S, f"{place} is reached {times} times")
        return time.monotonic()


class Victims(Protocol):
    """Starts workers that obey a plan; they are killed at the end of the test.

    Their leases are long, so that a busy machine adds no fault of its own: a test that waits for the end of one says
    INTERLOCK_LEASE_S="2".
    """

    def __call__(
        self,
        *rules: FaultRule,
        concurrency: int = 1,
        args: Sequence[str] = (),
        app: str = APP,
        **environment: str,
    ) -> Victim: ...


class FaultReport(Protocol):
    """Writes down what a fault cost: one line of JSON in the file that INTERLOCK_FAULT_RESULTS names, if it names one.

    The line is written when the checker has looked; `lost` is what it found missing, unless the test has counted by itself.
    """

    def __call__(
        self, *, fault: str, injected: str, runs: int = 1, lost: int | None = None, recovery_s: float | None = None
    ) -> None: ...


@pytest.fixture(scope="session")
def _fault_redis() -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    with RedisServer() as broker, RedisServer() as events, RedisServer() as ledger:
        yield broker, events, ledger


@pytest.fixture(scope="module")
def fault_redis(
    _fault_redis: tuple[RedisServer, RedisServer, RedisServer],
) -> tuple[RedisServer, RedisServer, RedisServer]:
    """Three empty servers: the broker's, that of events, and the ledger's, which no fault touches."""
    for server in _fault_redis:
        server.restart()
    return _fault_redis


@pytest.fixture(scope="module")
def deployment(
    fault_redis: tuple[RedisServer, RedisServer, RedisServer],
    postgres_databases: PostgresDatabases,
    postgres_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployment]:
    """Broker, events, ledger, a PostgreSQL database, and whatever workers the module starts."""
    broker, events, ledger = fault_redis
    folder = tmp_path_factory.mktemp("deployment")
    with (
        postgres_databases.fresh(postgres_template) as url,
        Deployment(broker, events, url, folder, ledger=ledger, app=APP) as deployment,
    ):
        checker_of(deployment)
        yield deployment
        deployment.stop_workers()


def checker_of(deployment: Deployment) -> Soundness:
    """The deployment's checker, which begins to listen when it is first asked for: before there is a run."""
    if deployment not in _checkers:
        _checkers[deployment] = Soundness(deployment)
        deployment.on_exit(_checkers[deployment].close)
    return _checkers[deployment]


@pytest.fixture(autouse=True)
def sound(request: pytest.FixtureRequest) -> Iterator[Soundness | None]:
    """The checker of the test's deployment; what it finds afterwards is the test's failure. None without a deployment."""
    request.node.stash[_reports] = []
    if "deployment" not in request.fixturenames:
        yield None
        return
    deployment: Deployment = request.getfixturevalue("deployment")
    checker = checker_of(deployment)
    yield checker
    found = checker.findings()
    for report in request.node.stash[_reports]:
        keep_result("fault", {**report, "lost": len(found) if report["lost"] is None else report["lost"]})
    assert not found, "\n".join(found)


@pytest.fixture
def fault_report(request: pytest.FixtureRequest, sound: Soundness | None) -> FaultReport:
    """How a test says what its fault cost."""

    def report(
        *, fault: str, injected: str, runs: int = 1, lost: int | None = None, recovery_s: float | None = None
    ) -> None:
        line = {"fault": fault, "injected": injected, "runs": runs, "lost": lost, "recovery_s": recovery_s}
        if sound is None:
            assert lost is not None, "without a deployment nothing counts what was lost"
            keep_result("fault", line)
        else:
            request.node.stash[_reports].append(line)

    return report


@pytest.fixture
def fault_plan(tmp_path: Path) -> Iterator[FaultPlans]:
    """Makes plans with a folder of their own each; what holds is released at the end of the test."""
    made: list[FaultPlan] = []

    def plan(*rules: FaultRule) -> FaultPlan:
        folder = tmp_path / f"plan-{len(made)}"
        folder.mkdir()
        made.append(FaultPlan(folder=folder, rules=rules))
        return made[-1]

    yield plan
    for each in made:
        each.release()


@pytest.fixture
def shut(deployment: Deployment) -> Iterator[str]:
    """A gate that is shut until the test opens it."""
    with gate(deployment, uuid4().hex) as name:
        yield name


@pytest.fixture
def victims(deployment: Deployment, fault_plan: FaultPlans, sound: Soundness) -> Iterator[Victims]:  # noqa: ARG001 - looks afterwards
    """Starts workers that obey a plan."""
    made: list[Victim] = []

    def victim(
        *rules: FaultRule, concurrency: int = 1, args: Sequence[str] = (), app: str = APP, **environment: str
    ) -> Victim:
        plan, queue = fault_plan(*rules), f"victim-{uuid4().hex[:8]}"
        options = {"INTERLOCK_LEASE_S": LONG_LEASE_S, **plan.environment(), **environment}
        where = ("--queues", queue, *args)
        worker = deployment.worker(queue, concurrency=concurrency, args=where, app=app, **options)
        made.append(Victim(worker, queue, plan))
        return made[-1]

    yield victim
    for each in made:
        each.plan.release()
        each.worker.kill()
