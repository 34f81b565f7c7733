"""RabbitMQ is out of reach in the middle of a fan-out: what was sent, held, or about to be sent comes to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from interlock.core.database.tables import StateHistory, WorkflowStep
from interlock.core.database.types import seconds_after
from interlock.core.model.states import StepState
from interlock.core.verify import Verification, verify
from tests.servers import wait_until
from tests.signals.scripts import opened

if TYPE_CHECKING:
    from interlock import Client
    from interlock.core import Database

    from .gateway import Gateway

ADD, TOTAL = "tests.rabbitmq.rabbit_app.slow_add", "tests.rabbitmq.rabbit_app.total"
WIDTH = 400
PATIENCE_S = 90.0


def _completed(database: Database) -> int:
    """How many steps have completed; asked of the database, since no command gets through an outage."""
    done = select(func.count()).where(WorkflowStep.status == StepState.COMPLETED.value)
    with database.reading() as connection:
        return connection.scalar(done) or 0


def _stands(database: Database) -> bool:
    newest = select(func.max(StateHistory.created_at) < seconds_after(-1.0))
    with database.reading() as connection:
        return bool(connection.scalar(newest))


def test_a_fan_out_survives_the_loss_of_every_connection(
    gated_remote: Client, gateway: Gateway, migrated_postgres_url: str
) -> None:
    fan = [{"key": f"s{n}", "task": ADD, "args": [n, 1]} for n in range(WIDTH)]
    join = {
        "key": "total",
        "task": TOTAL,
        "args": [{"$expr": "[" + ", ".join(f"results.s{n}" for n in range(WIDTH)) + "]"}],
        "after": [step["key"] for step in fan],
    }
    run_id = gated_remote.enqueue({"name": "outage", "task_description": "x", "steps": [*fan, join]})
    with opened(migrated_postgres_url) as database:
        wait_until(lambda: _completed(database) > WIDTH // 10, PATIENCE_S, "some have completed")
        assert gateway.cut() > 0
        wait_until(lambda: _stands(database), PATIENCE_S, "nothing has moved for a second")
        assert _completed(database) < WIDTH, "the outage was in the middle"
        gateway.mend()
        assert gated_remote.wait(run_id, timeout_s=PATIENCE_S) == "completed"
        assert gated_remote.result(run_id, "total") == sum(n + 1 for n in range(WIDTH))
        assert list(verify(database, Verification())) == []
