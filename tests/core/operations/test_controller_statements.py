"""What each verb costs: its statements and its commits, on either database.

A number that rises is a round trip more for everybody who calls the verb. A number that falls is written down here, so that it
stays. Statements of SQLAlchemy and those that go past it (`PinnedConnections.send_prepared`) are counted alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest

from interlock.core import StateMachine, WorkflowController
from interlock.core.attempts.outcomes import Failure
from interlock.core.settings import Settings
from interlock.core.sweeper.due_retries import DueRetries
from interlock.core.sweeper.run_kind import Due
from interlock.signals.control.command import Command, parse_args
from interlock.signals.control.handler import CommandHandler
from tests.core.rows import Rows, Traffic, step, traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core import Database
    from tests.core.worker_double import WorkerDouble

CHAIN: Final = [step("a"), step("b", "a"), step("c", "b")]
GATE: Final = [{"key": "gate", "approval": True}, step("b", "gate")]
RETRIED: Final = {"max_attempts": 2, "initial_delay_s": 0.0}


@dataclass
class Stage:
    """A database with a worker, and runs that are where a verb finds them.

    Attributes:
        run_id: The run that was enqueued last.
        sent: What the measured call has sent.
    """

    database: Database
    worker: WorkerDouble
    run_id: str = ""
    sent: Traffic = field(default_factory=Traffic)

    def command(self, verb: str, *, id_: str | None = None, **args: Any) -> Any:
        """Carry a command out as a client with a database does."""
        command = Command(id=id_ or verb, command=verb, workflow_id=self.run_id or None, args=args)
        handler = CommandHandler(self.database, Settings(), None)
        outcome = handler.handle(command, parse_args(command), fresh=id_ is None)
        assert outcome["ok"], outcome
        return outcome["result"]

    def enqueue(self, *steps: dict[str, Any], **options: Any) -> None:
        """Enqueue a run, before what is measured."""
        with self.database.session() as session:
            self.run_id = WorkflowController(session).enqueue_workflow(list(steps), task_description="x", **options)

    def run(self, *keys: str) -> None:
        """Have steps done, before what is measured."""
        for key in keys:
            self.worker.run(key)

    def measure(self, call: Callable[[], Any]) -> None:
        """Count what a call sends."""
        with traffic(self.database.engine) as self.sent:
            call()


def _enqueue(stage: Stage, **args: Any) -> None:
    plan = {"task_description": "x", "steps": CHAIN}
    stage.measure(lambda: stage.command("enqueue", plan=plan, **args))


def _enqueue_with_key(stage: Stage) -> None:
    _enqueue(stage, idempotency_key="key")


def _enqueue_with_request_id(stage: Stage) -> None:
    _enqueue(stage, id_="mine")


def _enqueue_again(stage: Stage) -> None:
    _enqueue(stage, id_="mine")
    _enqueue(stage, id_="mine")


def _enqueue_within(stage: Stage) -> None:
    """In the producer's own transaction, whose end is his."""
    with stage.database.session() as session:
        session.begin()
        stage.measure(lambda: WorkflowController(session).enqueue_workflow(CHAIN, task_description="x"))


def _enqueue_later(stage: Stage) -> None:
    _enqueue(stage, start_at="2100-01-01T00:00:00Z")


def _create(stage: Stage) -> None:
    stage.measure(lambda: stage.command("create", task_description="x"))


def _created(stage: Stage) -> None:
    stage.run_id = stage.command("create", task_description="x")


def _set_plan(stage: Stage) -> None:
    _created(stage)
    stage.measure(lambda: stage.command("set_plan", plan=CHAIN))


def _start(stage: Stage) -> None:
    _created(stage)
    stage.command("set_plan", plan=CHAIN)
    stage.measure(lambda: stage.command("start"))


def _claim(stage: Stage) -> None:
    stage.enqueue(*CHAIN)
    stage.measure(lambda: stage.worker.claim("a"))


def _complete(stage: Stage) -> None:
    stage.enqueue(*CHAIN)
    stage.worker.claim("a")
    stage.measure(lambda: stage.worker.complete("a", 1))


def _complete_last(stage: Stage) -> None:
    stage.enqueue(*CHAIN)
    stage.run("a", "b")
    stage.worker.claim("c")
    stage.measure(lambda: stage.worker.complete("c", 1))


def _fail(stage: Stage) -> None:
    """For good, and the run with it."""
    stage.enqueue(*CHAIN)
    stage.worker.claim("a")
    stage.measure(lambda: stage.worker.fail("a"))


def _fail_and_retry(stage: Stage) -> None:
    stage.enqueue(step("a", retry=RETRIED))
    stage.worker.claim("a")
    stage.measure(lambda: stage.worker.fail("a"))


def _claim_retry(stage: Stage) -> None:
    stage.enqueue(step("a", retry=RETRIED))
    stage.worker.run_failing("a")
    stage.measure(lambda: stage.worker.claim("a"))


def _retry_when_due(stage: Stage) -> None:
    stage.enqueue(step("a", retry={**RETRIED, "initial_delay_s": 60.0}))
    stage.worker.run_failing("a")
    rows = Rows(stage.database)
    rows.make_due(stage.run_id, "a", "retry_at")
    step_id = rows.step(stage.run_id, "a").id
    retries = DueRetries(stage.database, Settings())
    stage.measure(lambda: retries.enter(Due(stage.run_id, (step_id,))))


def _pause(stage: Stage) -> None:
    stage.enqueue(*CHAIN)
    stage.worker.claim("a")
    stage.measure(lambda: stage.command("pause"))


def _resume(stage: Stage) -> None:
    stage.enqueue(*CHAIN)
    stage.worker.claim("a")
    stage.command("pause")
    stage.measure(lambda: stage.command("resume"))


def _pause_step(stage: Stage) -> None:
    stage.enqueue(*CHAIN)
    stage.worker.claim("a")
    stage.measure(lambda: stage.command("pause", step="a"))


def _resume_step(stage: Stage) -> None:
    stage.enqueue(*CHAIN)
    stage.worker.claim("a")
    stage.command("pause", step="a")
    stage.measure(lambda: stage.command("resume", step="a"))


def _cancel(stage: Stage) -> None:
    stage.enqueue(*CHAIN)
    stage.worker.claim("a")
    stage.measure(lambda: stage.command("cancel"))


def _approve(stage: Stage) -> None:
    stage.enqueue(*GATE)
    stage.measure(lambda: stage.command("approve", step="gate"))


def _reject(stage: Stage) -> None:
    stage.enqueue(*GATE)
    stage.measure(lambda: stage.command("reject", step="gate"))


def _failed_but_alive(stage: Stage) -> None:
    stage.enqueue(step("a", on_failure="continue"), step("b"))
    stage.worker.run_failing("a", Failure("error", "no"))


def _retry(stage: Stage) -> None:
    _failed_but_alive(stage)
    stage.measure(lambda: stage.command("retry", step="a"))


def _settle(stage: Stage) -> None:
    _failed_but_alive(stage)
    stage.measure(lambda: stage.command("settle", step="a", result=1))


def _rerun(stage: Stage) -> None:
    stage.enqueue(*CHAIN)
    stage.run("a")
    stage.worker.run_failing("b")
    stage.measure(lambda: stage.command("rerun"))


def _transition(stage: Stage) -> None:
    """The bare machine, which moves one entity."""
    stage.enqueue(*CHAIN)
    with stage.database.session() as session:
        machine = StateMachine(session, "workflow_run")
        stage.measure(lambda: machine.transition_to(stage.run_id, "paused"))


def _ask(verb: str) -> Callable[[Stage], None]:
    def ask(stage: Stage) -> None:
        stage.enqueue(*CHAIN)
        stage.run("a", "b", "c")
        stage.measure(lambda: stage.command(verb))

    return ask


#: By verb: what has it done and measured; statements and commits on PostgreSQL, and on SQLite.
VERBS: Final[dict[str, tuple[Callable[[Stage], None], tuple[int, int], tuple[int, int]]]] = {
    "enqueue": (_enqueue, (2, 1), (5, 1)),
    "enqueue with an idempotency key": (_enqueue_with_key, (5, 1), (7, 1)),
    "enqueue with a request id": (_enqueue_with_request_id, (3, 1), (6, 1)),
    "the same request again": (_enqueue_again, (2, 1), (2, 1)),
    "enqueue within a transaction": (_enqueue_within, (3, 0), (6, 0)),
    "enqueue for later": (_enqueue_later, (2, 1), (5, 1)),
    "create": (_create, (2, 1), (3, 1)),
    "set_plan": (_set_plan, (4, 1), (5, 1)),
    "start": (_start, (12, 1), (12, 1)),
    "claim": (_claim, (1, 1), (4, 1)),
    "claim a retry": (_claim_retry, (2, 1), (2, 1)),
    "complete": (_complete, (1, 1), (7, 1)),
    "complete the last step": (_complete_last, (2, 2), (8, 1)),
    "fail": (_fail, (9, 1), (12, 1)),
    "fail and retry": (_fail_and_retry, (6, 1), (8, 1)),
    "retry when due": (_retry_when_due, (5, 1), (6, 1)),
    "pause": (_pause, (7, 1), (8, 1)),
    "resume": (_resume, (16, 1), (17, 1)),
    "pause a step": (_pause_step, (7, 1), (8, 1)),
    "resume a step": (_resume_step, (8, 1), (9, 1)),
    "cancel": (_cancel, (7, 1), (9, 1)),
    "approve": (_approve, (15, 1), (17, 1)),
    "reject": (_reject, (12, 1), (14, 1)),
    "retry": (_retry, (7, 1), (8, 1)),
    "settle": (_settle, (8, 1), (10, 1)),
    "rerun": (_rerun, (16, 1), (21, 1)),
    "transition_to": (_transition, (2, 1), (3, 1)),
    "status": (_ask("status"), (5, 0), (5, 0)),
    "result": (_ask("result"), (2, 0), (2, 0)),
    "list": (_ask("list"), (2, 0), (2, 0)),
    "explain": (_ask("explain"), (7, 0), (7, 0)),
    "replay": (_ask("replay"), (1, 0), (1, 0)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_these_statements_and_commits(database: Database, worker: WorkerDouble, verb: str) -> None:
    act, on_postgresql, on_sqlite = VERBS[verb]
    stage = Stage(database, worker)
    act(stage)
    expected = on_postgresql if database.dialect == "postgresql" else on_sqlite
    assert (len(stage.sent.statements), stage.sent.commits) == expected, "\n".join(stage.sent.statements)
