"""procrastinate: `procrastinate_peer.py worker|producer DATABASE_URL`. Jobs in PostgreSQL, woken by LISTEN and NOTIFY.

It has neither chains nor joins: a job defers the next one, and a fan-out is over when all of its jobs are.
"""

from __future__ import annotations

import sys

import psycopg
from driving import serve, wait_for
from procrastinate import App, PsycopgConnector

CONCURRENCY = 10
app = App(connector=PsycopgConnector(conninfo=sys.argv[2]))


@app.task(name="pass_on")
async def pass_on(left: int) -> None:
    """Defer the next one."""
    if left > 1:
        await pass_on.defer_async(left=left - 1)


@app.task(name="noop")
async def noop() -> None:
    """Do nothing."""


def work() -> None:
    """Run jobs until the process is ended."""
    app.run_worker(
        concurrency=CONCURRENCY,
        install_signal_handlers=False,
        listen_notify=True,
        stalled_worker_timeout=3600,  # stopped while it is others' turn, it is not to be taken for dead
    )


def produce(url: str) -> None:
    """Defer what is asked for and wait for it."""
    with app.open(), psycopg.connect(url, autocommit=True) as connection:
        app.schema_manager.apply_schema()
        print("schema applied", flush=True)

        def done() -> int:
            query = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
            return connection.execute(query).fetchone()[0]

        def chains(count: int, length: int) -> None:
            before = done()
            for _ in range(count):
                pass_on.defer(left=length)
            wait_for(done, before + count * length)

        def fan_out(width: int) -> None:
            before = done()
            noop.batch_defer(*[{} for _ in range(width)])
            wait_for(done, before + width)

        serve({"chains": chains, "fan_out": fan_out})


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        work()
    else:
        produce(sys.argv[2])
