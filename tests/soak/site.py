"""Where a soak runs, and what it is measured by."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from interlock.migrations import upgrade
from tests.servers import PostgresServer, RedisServer
from tests.worker.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ADVISED", "FLAT", "soaking"]

ADVISED = ("--without-gossip", "--without-mingle")
"""How README.md advises to start workers: with Celery's gossip, MAIN leaves a connection open at each loss of a Redis broker."""

FLAT = 0.10
"""How far a process's memory may be from where it was after the warm-up."""


@contextmanager
def soaking() -> Iterator[Deployment]:
    """Servers and an empty database; everything ends with the block."""
    folder = Path(tempfile.mkdtemp(prefix="interlock-soak-"))
    try:
        with RedisServer() as broker, RedisServer() as events, PostgresServer() as postgres:
            url = postgres.create_database("soak")
            upgrade(url)
            with Deployment(broker, events, url, folder) as deployment:
                yield deployment
    finally:
        shutil.rmtree(folder)
