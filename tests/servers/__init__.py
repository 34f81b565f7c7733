"""Real servers for tests: Redis, PostgreSQL, Celery workers; on 127.0.0.1, on ports of their own.

The binaries come from wheels in the environment, so nothing has to be installed or running. A private server can be
stopped, killed and started again on the same port; one PostgreSQL server stays between test runs (`shared_postgres`).
Nothing here knows of Interlock; fixtures are in tests/conftest.py.
"""

from tests.celery_worker import CeleryWorker
from tests.processes import HOST, ROOT, free_port, tail, wait_until

from .postgres import ADVISORY_LOCK_WAITERS, PostgresDatabases, PostgresServer, name_of
from .redis import RedisServer
from .server import Server
from .shared_postgres import SharedPostgres

__all__ = [
    "ADVISORY_LOCK_WAITERS",
    "HOST",
    "ROOT",
    "CeleryWorker",
    "PostgresDatabases",
    "PostgresServer",
    "RedisServer",
    "Server",
    "SharedPostgres",
    "free_port",
    "name_of",
    "tail",
    "wait_until",
]
