"""Engine processes killed a hundred times, over the commands that they have in hand, while operators go on and other tasks run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from interlock import Workflow
from interlock.core.database.tables import ControlCommand, WorkflowRun, table_of_model
from interlock.core.errors import CommandTimeout
from interlock.signals.control import queues as control
from tests.fault_plans import FaultRule
from tests.faults.steps import held, task
from tests.servers import wait_until
from tests.worker.deployment import engine_pid, gate

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock import Client
    from tests.celery_worker import CeleryWorker
    from tests.faults.conftest import FaultPlans, FaultReport
    from tests.worker.deployment import Deployment

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

KILLS: Final = 100
OPERATORS: Final = 4
FOREIGN_EACH: Final = 3
KEPT: Final = 8
PATIENCE_S: Final = 60.0
ANSWER_S: Final = 2.0
_PLACES: Final = ("control.received", "command.commit", "control.ack", "control.reply")
_STARTED: Final = ["planning", "executing"]

_runs = table_of_model(WorkflowRun)
_commands = table_of_model(ControlCommand)


@dataclass
class Engine:
    """The engine of one worker, seen from outside.

    Attributes:
        worker: Whose.
        hits: How often it, and those before it, reached a place.
        kills: How often it was killed.
    """

    worker: CeleryWorker
    hits: Callable[[str], int]
    kills: int = 0

    def kill(self, place: str) -> None:
        """Wait until it is there again, and has a command at `place`; then kill it."""
        wait_until(lambda: self.hits("engine.ready") > self.kills, PATIENCE_S, f"engine {self.kills + 1} is there")
        before = self.hits(place)
        wait_until(lambda: self.hits(place) > before, PATIENCE_S, f"it reaches {place}")
        pid = engine_pid(self.worker)
        assert pid, "it has ended by itself"  # and a signal to 0 would go to this process and all of its group
        os.kill(pid, signal.SIGKILL)
        self.kills += 1


@dataclass
class Operator:
    """Somebody who starts runs and steers them over the control queue, one after the other.

    Attributes:
        done: What each run must have gone through.
        sent: The ids of the commands.
        repeated: How many had to be sent again, with their id, because nobody answered.
        failure: Why it ended before its time.
    """

    deployment: Deployment
    number: int
    stop: threading.Event
    done: dict[str, list[str]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    repeated: int = 0
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._work, name=f"operator {self.number}", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Finish the run that was begun."""
        self.stop.set()
        self._thread.join(PATIENCE_S)

    def _work(self) -> None:
        try:
            with self.deployment.remote_client(command_timeout_s=ANSWER_S, actor=f"operator-{self.number}") as client:
                for ends in cycle(("completed", "cancelled", "completed")):
                    if self.stop.is_set():
                        return
                    self._steer(client, ends)
        except BaseException as error:  # noqa: BLE001 - the test's failure
            self.failure = error

    def _steer(self, client: Client, ends: str) -> None:
        with gate(self.deployment, uuid4().hex) as shut:
            plan = Workflow("steered", "Be paused and go on.", [held("a", shut), held("b", shut, after=["a"])])
            run_id = self._ask(client.enqueue, plan)
            step_id = self.deployment.step_id(run_id)
            # The engine that was to send it may die at that, and the next one at sending it again, each time twice as late.
            ledger = self.deployment.ledger
            wait_until(lambda: "begin" in ledger.of(step_id), PATIENCE_S, f"{step_id} has begun")
            self._ask(client.pause, run_id)
            self._ask(client.resume, run_id)
            if ends == "cancelled":
                self._ask(client.cancel, run_id)
        self.done[run_id] = [*_STARTED, "paused", "executing", ends]

    def _ask(self, verb: Callable[..., Any], *args: Any) -> Any:
        """Repeat a command under its id until it is answered."""
        request_id = uuid4().hex
        self.sent.append(request_id)
        while True:
            try:
                return verb(*args, request_id=request_id)
            except CommandTimeout:
                self.repeated += 1


def _send(deployment: Deployment, queue: str, name: str, *args: Any) -> str:
    """Send an ordinary Celery message of the same app; returns its id."""
    return str(deployment.app.send_task(task(name), args, queue=queue).id)


def _bodies(deployment: Deployment, ids: set[str], what: str) -> Counter[str]:
    """How often the bodies of these messages wrote this."""
    effects = deployment.ledger.effects()
    return Counter(each["step_id"] for each in effects if each["what"] == what and each["step_id"] in ids)


def _run_states(deployment: Deployment, run_id: str) -> list[str]:
    return [row.to_state for row in deployment.history(run_id) if row.entity_type == "workflow_run"][1:]


def test_a_hundred_engines_die_over_their_commands_and_none_is_lost_or_done_twice(
    deployment: Deployment, fault_plan: FaultPlans, fault_report: FaultReport, shut: str
) -> None:
    """F37: two workers, so that two engines take turns in dying; a MAIN holds other tasks' messages all the time."""
    engines = []
    for name, size, prefetch in (("celery", OPERATORS + 1, 1), ("kept", 1, KEPT + 1)):
        plan = fault_plan(*(FaultRule(place=place, times=None) for place in ("engine.ready", *_PLACES)))
        args = ("--queues", name, "--prefetch-multiplier", str(prefetch))
        worker = deployment.worker(name, concurrency=size, args=args, INTERLOCK_LEASE_S="15", **plan.environment())
        engines.append(Engine(worker, plan.hits))
    kept = {_send(deployment, "kept", "hard_of_hearing", shut)}
    kept |= {_send(deployment, "kept", "echo", number) for number in range(KEPT)}
    wait_until(lambda: engines[1].worker.output.count("received") == 1 + KEPT, PATIENCE_S, "MAIN has them all")
    foreign: set[str] = set()
    stop, began = threading.Event(), time.monotonic()
    operators = [Operator(deployment, number, stop) for number in range(OPERATORS)]
    with operators[0], operators[1], operators[2], operators[3]:
        for number, place in zip(range(KILLS), cycle(_PLACES), strict=False):
            engines[number % 2].kill(place)
            foreign |= {_send(deployment, "celery", "echo", index) for index in range(FOREIGN_EACH)}
    took_s = time.monotonic() - began
    assert [operator.failure for operator in operators] == [None] * OPERATORS
    wait_until(
        lambda: [each.worker.output.count("exit code -9") for each in engines] == [KILLS // 2] * 2,
        PATIENCE_S,
        "each MAIN has said of every engine that it was killed",
    )
    assert took_s > control._VISIBILITY_TIMEOUT_S, "what a killed engine had in hand has come back"
    runs = {run_id: states for operator in operators for run_id, states in operator.done.items()}
    for run_id, states in runs.items():
        deployment.wait_for_status(run_id, states[-1])
    assert {run_id: _run_states(deployment, run_id) for run_id in runs} == runs
    with deployment.database.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(_runs)) == len(runs)
        recorded = set(connection.scalars(select(_commands.c.id).where(_commands.c.session_id != "*")))
    assert recorded == {request_id for operator in operators for request_id in operator.sent}
    deployment.ledger.open_gate(shut)
    everyone = kept | foreign
    wait_until(lambda: len(_bodies(deployment, everyone, "end")) == len(everyone), PATIENCE_S, "all have run")
    assert set(_bodies(deployment, everyone, "begin").values()) == {1}
    fault_report(fault="F37", injected="kill -9 of two engines by turns, commands in hand", runs=KILLS)
