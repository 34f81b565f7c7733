"""What the processes of one worker hold: memory, files, connections. It only looks."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import psycopg
import redis
from sqlalchemy.engine import make_url

from tests.worker.deployment import engine_pid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.celery_worker import CeleryWorker
    from tests.worker.deployment import Deployment

__all__ = ["POOL", "Held", "held", "memory", "processes"]

POOL = 5
"""Connections to the database that a process may keep: SQLAlchemy's pool. It opens one when a thread asks while the others are in
use, which in an engine (five threads ask) may be the first time after any number of restarts: control, say, while the sweeper
reads. What goes beyond it is a leak, and so is one more of anything else."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is open at one moment, by who has it open.

    Attributes:
        files: Open files, pipes and sockets of each process, without its connections to the database.
        sockets: Of these, its TCP connections.
        pools: Its connections to the database.
        clients: Clients that each server counts; of the database, those that are none of these processes'.
    """

    files: Mapping[str, int]
    sockets: Mapping[str, int]
    pools: Mapping[str, int]
    clients: Mapping[str, int]

    def rows(self) -> dict[str, int]:
        """All of it under names for a report."""
        return {
            **{f"{name}: files": count for name, count in self.files.items()},
            **{f"{name}: connections": count for name, count in self.sockets.items()},
            **self._pool_rows(),
            **{f"{name}: clients": count for name, count in self.clients.items()},
        }

    def more_than(self, before: Held) -> dict[str, tuple[int, int]]:
        """What there is more of than before: how much there was, how much there is; of a pool, beyond its size."""
        earlier, pools = before.rows(), self._pool_rows()
        return {
            name: (earlier[name], count)
            for name, count in self.rows().items()
            if count > max(earlier[name], POOL if name in pools else 0)
        }

    def _pool_rows(self) -> dict[str, int]:
        return {f"{name}: connections to PostgreSQL": count for name, count in self.pools.items()}


def processes(worker: CeleryWorker) -> dict[str, psutil.Process]:
    """MAIN, its pool processes in the order of their start, and its engine."""
    main, engine = psutil.Process(worker.pid), engine_pid(worker)
    pool = sorted((child for child in main.children() if child.pid != engine), key=lambda child: child.create_time())
    children = {f"pool process {number}": child for number, child in enumerate(pool, start=1)}
    return {"MAIN": main, **children, "engine": psutil.Process(engine)}


def memory(worker: CeleryWorker) -> dict[str, int]:
    """Resident bytes of each process, what it shares with MAIN included: so what it unshares by and by does not count."""
    return {name: process.memory_info().rss for name, process in processes(worker).items()}


def held(worker: CeleryWorker, deployment: Deployment) -> Held:
    """What is open now, in the worker, in this process as a client, and at the servers."""
    everyone = {**processes(worker), "client": psutil.Process()}
    port = make_url(deployment.database_url).port
    remote = {name: _remote_ports(process) for name, process in everyone.items()}
    pools = {name: ports.count(port) for name, ports in remote.items()}
    return Held(
        files={name: process.num_fds() - pools[name] for name, process in everyone.items()},
        sockets={name: len(ports) - pools[name] for name, ports in remote.items()},
        pools=pools,
        clients={
            "PostgreSQL": max(_backends(deployment.database_url) - sum(pools.values()), 0),
            "broker": _redis_clients(deployment.broker.url()),
            "events": _redis_clients(deployment.events.url()),
        },
    )


def _remote_ports(process: psutil.Process) -> list[int | None]:
    return [each.raddr.port if each.raddr else None for each in process.net_connections("tcp")]


def _backends(url: str) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql", 1)) as connection:
        row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0


def _redis_clients(url: str) -> int:
    with suppress(redis.ConnectionError), redis.Redis.from_url(url) as client:
        return int(client.info("clients")["connected_clients"]) - 1
    return 0
