"""`interlock doctor` on RabbitMQ: workers and engine answer there as well, and what is Redis' alone is not asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.servers import ROOT

if TYPE_CHECKING:
    from interlock import Client


def test_workers_and_engine_answer_on_rabbitmq(remote: Client, queue: str, migrated_postgres_url: str) -> None:
    run_id = remote.enqueue(
        {
            "task_description": "x",
            "steps": [
                {"key": "a", "task": "tests.rabbitmq.rabbit_app.add", "args": [1, 1]},
                {"key": "gate", "approval": True, "after": ["a"]},
                {"key": "b", "task": "tests.rabbitmq.rabbit_app.add", "args": [1, 1], "queue": f"{queue}.nobody"},
            ],
        }
    )
    environment = {
        **os.environ,
        "INTERLOCK_DATABASE_URL": migrated_postgres_url,
        "TEST_QUEUE": queue,
        "PYTHONPATH": str(ROOT),
    }
    words = ("-A", "tests.rabbitmq.rabbit_app", "doctor", "--json", "--timeout", "4")
    done = subprocess.run(
        [sys.executable, "-m", "interlock.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    remote.cancel(run_id)
    found = {each["code"]: each for each in json.loads(done.stdout)["findings"]}
    for code in ("broker", "broker_kind", "workers", "engine", "installed", "pool", "clock_skew", "consumer_timeout"):
        assert found[code]["severity"] == "ok", found[code]
    assert f"consumes queue {queue}.nobody: 1 steps wait in it, it holds 1 messages" in found["consumers"]["what"]
    assert found["publisher_confirms"]["severity"] == "warning"
    assert not found.keys() & {"redis_eviction", "redis_memory", "visibility_timeout"}
    with remote.app.connection_for_write() as connection:
        connection.default_channel.queue_delete(f"{queue}.nobody")
        connection.default_channel.exchange_delete(f"{queue}.nobody")
