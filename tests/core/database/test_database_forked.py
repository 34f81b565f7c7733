"""A process that was forked from one with open connections takes its own: the parent's conversation is not its business."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core import Database


def _in_a_fork(ask: Callable[[], str]) -> str:
    """What a forked process answers."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = ask()
        except BaseException as error:  # noqa: BLE001 - the test's process must not go on in two copies
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def test_a_forked_process_does_not_use_its_parents_connections(database: Database) -> None:
    """A web server that loads its app before it forks, and has enqueued something by then."""

    def connection() -> str:
        with database.engine.connect() as connection:
            if database.dialect == "postgresql":
                return str(connection.scalar(text("SELECT pg_backend_pid()")))
            return str(id(connection.connection.dbapi_connection))

    parents = connection()
    assert connection() == parents  # pooled
    assert _in_a_fork(connection) not in ("", parents)
    assert connection() == parents
