"""DBOS: `dbos_peer.py worker|producer DATABASE_URL`. A workflow is a function, a step a call; no broker.

Queues are polled ten times a second, where once is the default: a lone chain would else wait longer for its start than for
all of its steps. A worker has no limit on what it runs at once, but for the chains, which two processes are to share.
"""

from __future__ import annotations

import sys
import threading

from dbos import DBOS, DBOSClient
from driving import WORKER_IS_UP, serve

CHAINS = "chains"
TASKS = "tasks"
VERSION = "1"  # of the application: workers run only what has their own


@DBOS.step()
def noop() -> None:
    """Do nothing."""


@DBOS.workflow()
def chain(length: int) -> None:
    """So many steps, one behind the other."""
    for _ in range(length):
        noop()


@DBOS.workflow()
def task() -> None:
    """One of many side by side: a workflow of its own, as DBOS distributes them."""


@DBOS.workflow()
def fan_out(width: int) -> None:
    """Enqueue so many, wait for them all, and join."""
    handles = [DBOS.enqueue_workflow(TASKS, task) for _ in range(width)]
    for handle in handles:
        handle.get_result()
    noop()


def work(url: str, name: str) -> None:
    """Run workflows until the process is ended."""
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": url,
            "application_version": VERSION,
            "executor_id": name,
            "log_level": "WARNING",
        },
    )
    DBOS.launch()
    DBOS.register_queue(CHAINS, worker_concurrency=10, polling_interval_sec=0.1)
    DBOS.register_queue(TASKS, worker_concurrency=10, polling_interval_sec=0.1)
    print(WORKER_IS_UP, flush=True)
    threading.Event().wait()


def produce(url: str) -> None:
    """Enqueue what is asked for and wait for it."""
    client = DBOSClient(system_database_url=url, application_name="benchmark")

    def run(workflow: str, times: int, argument: int) -> None:
        options = {"workflow_name": workflow, "queue_name": CHAINS, "app_version": VERSION}
        handles = [client.enqueue(options, argument) for _ in range(times)]
        for handle in handles:
            handle.get_result(polling_interval_sec=0.02)

    serve(
        {"chains": lambda count, length: run("chain", count, length), "fan_out": lambda width: run("fan_out", 1, width)}
    )
    client.destroy()


if __name__ == "__main__":
    role, database_url, *rest = sys.argv[1:]
    if role == "worker":
        work(database_url, *rest)
    else:
        produce(database_url)
