"""The servers of one run: one Redis for every broker, and a PostgreSQL that flushes each commit."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil
import psycopg
import redis
from psycopg import sql

from interlock.migrations import upgrade
from tests.servers import PostgresServer, RedisServer

from .measuring import CpuMeter, own_cpu_s, tree_cpu_s

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Site"]

_TEMPLATE = "interlock_template"


class Site:
    """The servers, a folder for files, and databases that are migrated and empty.

    Attributes:
        folder: For logs and SQLite files; removed at the end.
        postgres: With fsync and `synchronous_commit` on.
        redis: Brokers, Celery's results and our events.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="interlock-bench-"))
        self.postgres = PostgresServer(durable=True)
        self.redis = RedisServer()
        self._numbers = count()
        self._brokers = count()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start the servers."""
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        with ExitStack() as starting:
            starting.push(self._stack)
            self._stack.enter_context(self.postgres)
            self._stack.enter_context(self.redis)
            upgrade(self.postgres.create_database(_TEMPLATE))
            starting.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop them."""
        self._stack.close()

    def migrated_postgres(self) -> str:
        """The URL of a new PostgreSQL database with all tables and no rows."""
        return self.postgres.create_database(f"bench_{next(self._numbers)}", _TEMPLATE)

    def empty_postgres(self) -> str:
        """The URL of a new PostgreSQL database without tables."""
        return self.postgres.create_database(f"bench_{next(self._numbers)}")

    def drop_postgres(self, url: str) -> None:
        """Drop a database that was made here."""
        self.postgres.databases.drop(url.rpartition("/")[2])

    def migrated_sqlite(self) -> str:
        """The URL of a new SQLite file with all tables and no rows."""
        url = f"sqlite:///{self.folder / f'bench_{next(self._numbers)}.db'}"
        upgrade(url)
        return url

    def broker_url(self) -> str:
        """The URL of one of Redis' databases, emptied; there are sixteen, so the oldest comes round again."""
        url = self.redis.url(next(self._brokers) % 16)
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        return url

    @property
    def cpu_groups(self) -> dict[str, Callable[[], float]]:
        """CPU counters of this process, which enqueues, and of the servers."""
        producer = psutil.Process(os.getpid())
        database, broker = psutil.Process(self.postgres.pid), psutil.Process(self.redis.pid)
        return {
            "producer": lambda: own_cpu_s(producer),
            "Redis": lambda: own_cpu_s(broker),
            "PostgreSQL": lambda: tree_cpu_s(database),
        }

    def meter(self) -> CpuMeter:
        """Start to measure this process and the servers."""
        return CpuMeter(self.cpu_groups)

    def durability(self) -> dict[str, str]:
        """The settings that decide whether a commit is on the disk."""
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        with psycopg.connect(self.postgres.databases.admin_url) as connection:
            rows = {
                name: connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone() for name in names
            }
        return {name: str(row[0]) for name, row in rows.items() if row is not None}
