"""An app whose configuration holds secrets, as one that reads them from a file does; the environment tells the test's values."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from interlock import install
from tests.worker.bodies import note, pass_gate

app = Celery("tests_secrets", broker=os.environ["SECRETS_REDIS_URL"])
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    worker_send_task_events=True,
    interlock_redis_url=os.environ["SECRETS_REDIS_URL"],
    interlock_database_url=os.environ["SECRETS_DATABASE_URL"],
    interlock_signing_keys={"default": [os.environ["SECRETS_KEY"]]},
)
install(app)


@app.task
def hold(gate: str, secret: str, *, also: str) -> Any:
    """Wait at the gate, and return what nobody is to see."""
    note("begin")
    pass_gate(gate)
    return {"first": secret, "second": also, "own": os.environ["SECRETS_RESULT"]}


@app.task
def foreign(shown: str) -> str:
    """No step: Celery shows it as ever."""
    return shown
