"""A Celery app on RabbitMQ, with a queue of its own so that the server may be shared."""

from __future__ import annotations

import os
import time

from celery import Celery

from interlock import install

app = Celery("rabbit_app", broker=os.environ["INTERLOCK_TEST_AMQP_URL"])
app.conf.update(
    task_default_queue=os.environ["TEST_QUEUE"],
    interlock_channel_prefix=os.environ["TEST_QUEUE"],
    interlock_lease_s=2,
    interlock_heartbeat_s=0.5,
    interlock_sweep_s=0.3,
)
install(app)


@app.task
def add(left: int, right: int) -> int:
    """Add."""
    return left + right


@app.task
def slow_add(left: int, right: int) -> int:
    """Add, and take so long that a few hundred take seconds."""
    time.sleep(0.02)
    return left + right


@app.task
def total(numbers: list[int]) -> int:
    """Add up."""
    return sum(numbers)
