"""An outage after which ten thousand steps are due at once: few statements, under the rate limit, and all of them complete."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest
from redis import Redis
from sqlalchemy import func, select

from interlock.core.database.tables import WorkflowRun, WorkflowStep, table_of_model
from interlock.core.database.types import clock
from interlock.core.settings import Settings
from interlock.core.sweeper.redispatch import BATCH
from interlock.core.sweeper.sweeper import Sweeper
from interlock.signals.runtime import Runtime
from tests.core.rows import counted
from tests.fault_plans import FaultRule
from tests.faults.steps import step
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tests.faults.conftest import FaultPlans, FaultReport
    from tests.worker.deployment import Deployment

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

RUNS, EACH = 10, 1_000
DUE: Final = RUNS * EACH
RATE: Final = 500
SWEEP_S: Final = 2.0
BURST: Final = int(RATE * SWEEP_S)
STATEMENTS_OF_A_BATCH, PARTS_OF_A_SWEEP = 3, 8
ALL_DONE_S, PATIENCE_S = 180.0, 60.0
# Messages that wait behind thousands of others are not lost: here they are not sent again for that.
LIMITS: Final = {"sweep_s": SWEEP_S, "redispatch_rate": RATE, "redispatch_s": 90}
QUEUE: Final = "many"

_steps = table_of_model(WorkflowStep)
_runs = table_of_model(WorkflowRun)


@dataclass
class Sending:
    """How many messages had been sent, at some moments; the database's clock says when."""

    deployment: Deployment
    every_s: float = 0.5
    samples: list[tuple[datetime, int]] = field(default_factory=list)
    _next: float = 0.0

    def look(self) -> None:
        """Take a sample, where the last one is old enough."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self.every_s
        with self.deployment.database.reading() as connection:
            now, sent = connection.execute(select(clock(), func.sum(_steps.c.dispatches))).one()
        self.samples.append((now, int(sent)))

    def too_fast(self) -> list[tuple[float, int]]:
        """Seconds and messages of every stretch in which more was sent than the rate limit allows.

        What was paid for before a stretch and committed in it is one batch at most.
        """
        stretches = (
            ((till - since).total_seconds(), after - before)
            for number, (since, before) in enumerate(self.samples)
            for till, after in self.samples[number:]
        )
        return [(seconds, sent) for seconds, sent in stretches if sent > RATE * (seconds + SWEEP_S) + BATCH]


def _due(deployment: Deployment) -> int:
    with deployment.database.reading() as connection:
        return int(connection.scalar(select(func.count()).where(_steps.c.due_at <= clock())) or 0)


def _ended(deployment: Deployment, run_ids: Sequence[str]) -> bool:
    query = select(func.count()).where(_runs.c.id.in_(run_ids), _runs.c.completed_at.is_not(None))
    with deployment.database.reading() as connection:
        return connection.scalar(query) == len(run_ids)


def test_ten_thousand_steps_due_at_once_are_sent_in_batches_at_the_pace_and_all_complete(
    deployment: Deployment, fault_plan: FaultPlans, fault_report: FaultReport
) -> None:
    """F32: the broker is away while ten workflows are enqueued; when it is back all their messages are due."""
    deployment.broker.kill()
    app = deployment.producer_app(interlock_sweep_s=SWEEP_S)
    settings = Settings.load(app.conf).model_copy(update=LIMITS)
    plan = fault_plan(FaultRule(place="redispatch.commit", times=None))
    with closing(Runtime(app, settings)) as runtime:
        run_ids = [
            deployment.enqueue(*(step(f"s{number}", "echo", number, queue=QUEUE) for number in range(EACH)))
            for _ in range(RUNS)
        ]
        wait_until(lambda: _due(deployment) == DUE, PATIENCE_S, "all are due")
        deployment.broker.start()
        back = time.monotonic()
        sending = Sending(deployment)
        sending.look()
        with counted(runtime.database.engine) as statements:
            swept = Sweeper(runtime.database, settings).sweep()
    batches = BURST // BATCH
    words = Counter(statement.split(maxsplit=1)[0] for statement in statements)
    assert swept.redispatched == BURST, "the whole allowance, and no more"
    assert words["WITH"] == words["UPDATE"] == batches, "the rows of a batch, and what is charged for it"
    assert len(statements) <= STATEMENTS_OF_A_BATCH * batches + PARTS_OF_A_SWEEP
    environment = {f"INTERLOCK_{name.upper()}": str(value) for name, value in LIMITS.items()}
    options = ("--queues", QUEUE, "--prefetch-multiplier", "20", "--without-gossip", "--without-mingle")
    deployment.worker("many", args=options, INTERLOCK_LEASE_S="30", **plan.environment(), **environment)

    def done() -> bool:
        sending.look()
        return _ended(deployment, run_ids)

    wait_until(done, ALL_DONE_S, "all have ended")
    took_s = time.monotonic() - back
    # What was sent twice is refused at its claim; then the worker can be stopped.
    with Redis.from_url(deployment.broker.url(0)) as redis:
        wait_until(lambda: not redis.llen(QUEUE), PATIENCE_S, "the queue is empty")
    assert sending.too_fast() == []
    sent = sending.samples[-1][1]
    assert sent >= DUE
    # Nobody's message has a transaction of its own; a batch that the rate limit cuts off is a smaller one.
    assert plan.hits("redispatch.commit") <= 2 * sent / BATCH
    fault_report(fault="F32", injected=f"{DUE:,} messages due when the broker is back", recovery_s=took_s)
