"""A Redis connection on which commands go out in one write, and answers that nobody needs are not waited for.

What PUBLISH answers is how many listened, which nobody wants to know; but an error may be in it, and a connection whose answers
are not read fills up. So what is owed is read before the next sending, when it has long been there: a commit that has something
to tell waits for one `send` and for nothing else. A message may be left to itself like this too: it is kept until its answer is
read, and goes out once more in front of the next sending where the connection was lost with that answer.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import redis

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Command", "Wire"]

Command = tuple[str | bytes, ...]
"""A Redis command with its arguments."""

_KEPT: Final = 1000  # of a connection that is lost again and again; the sweeper knows what is due


class Wire:
    """One connection of a client's, for one process; threads may share it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._connection: Any = None
        self._owed = 0
        # The first of those that are owed, or what was lost with the connection.
        self._kept: deque[Command] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def send(self, commands: Sequence[Command], *, wait_for: int, keep: int = 0) -> None:
        """Send commands in one write.

        Args:
            commands: In their order.
            wait_for: Of how many, from the first, to read the answers before returning; errors of the rest show at the next call.
            keep: How many, from the first, to send again with the next ones if the connection is lost before their answers are
                read; they may then have been taken twice. One that this call fails on is not kept.

        Raises:
            RedisError: Redis is away, or refused one of these or of those before.
        """
        if not commands:
            return
        with self._lock:
            connection = self._ready()
            lost = [*self._kept]
            try:
                connection.send_packed_command(connection.pack_commands([*lost, *commands]), check_health=False)
                self._owed += len(lost) + len(commands)
                self._read_owed(connection, len(commands) - wait_for if wait_for else self._owed)
                self._kept.extend(commands[wait_for:keep])
            except BaseException:
                self._drop()
                raise

    def close(self) -> None:
        """Close the connection; the next sending opens another."""
        with self._lock:
            self._drop()
            self._kept.clear()

    def _ready(self) -> Any:
        """The connection, with nothing owed on it; a new one where the old one has gone with what it owed."""
        connection = self._connection
        if connection is not None:
            try:
                self._read_owed(connection)
                if connection.can_read(timeout=0):
                    self._drop()  # nothing is owed, so this is the end of it
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                self._drop()  # what was on it is lost, as a message to nobody is, but for what was kept
            except BaseException:
                self._drop()
                raise
        if self._connection is None:
            self._connection = self._client.connection_pool.get_connection()
        return self._connection

    def _read_owed(self, connection: Any, but: int = 0) -> None:
        refusal: redis.ResponseError | None = None
        while self._owed > but:
            try:
                connection.read_response()
            except redis.ResponseError as error:  # of one message; the answers behind it have to be read all the same
                refusal = error
            self._owed -= 1
            if self._kept:
                self._kept.popleft()
        if refusal is not None:
            raise refusal

    def _drop(self) -> None:
        connection, self._connection, self._owed = self._connection, None, 0
        if connection is not None:
            connection.disconnect()
            self._client.connection_pool.release(connection)
