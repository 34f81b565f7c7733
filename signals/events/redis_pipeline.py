"""A Redis connection on which commands go out in one write, and answers that nobody needs are not waited for.

What PUBLISH answers is how many listened, which nobody wants to know; but an error may be in it, and a connection whose answers
are not read fills up. So what is owed is read before the next sending, when it has long been there: a commit that has something
to tell waits for one `send` and for nothing else. Commands that matter may be left to themselves like this too: they are watched,
and `settle` says whether all of them were taken.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Command", "Wire"]

Command = tuple[str | bytes, ...]
"""A Redis command with its arguments."""


class Wire:
    """One connection of a client's, for one process; threads may share it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._connection: Any = None
        self._owed = 0
        self._watched = 0  # of the answers that are owed, the first
        self._all_taken = True
        self._refusal: redis.ResponseError | None = None  # of which nobody has been told
        self._lock = threading.Lock()

    def send(self, commands: Sequence[Command], *, wait_for: int, watch: int = 0) -> None:
        """Send commands in one write.

        Args:
            commands: In their order.
            wait_for: Of how many, from the first, to read the answers before returning; errors of the rest show at the next call.
            watch: Of how many, from the first, `settle` is to say whether they were taken; of those of a call that has failed it
                says nothing.

        Raises:
            RedisError: Redis is away, or refused one of these or of those before.
        """
        if not commands:
            return
        with self._lock:
            connection = self._ready()
            try:
                connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                self._owed += len(commands)
                self._read_owed(connection, len(commands) - wait_for)
                self._tell_refusal()
                self._watched = max(watch - wait_for, 0)
            except BaseException:
                self._drop()
                raise

    def settle(self) -> bool:
        """Read what is owed; False where one of the commands that were watched since the last call may not have been taken."""
        with self._lock:
            try:
                if self._watched:
                    self._read_owed(self._connection)
            except (redis.RedisError, OSError):
                self._drop()
            except BaseException:
                self._drop()
                raise
            all_taken, self._all_taken = self._all_taken, True
            return all_taken

    def close(self) -> None:
        """Close the connection; the next sending opens another."""
        with self._lock:
            self._drop()

    def _ready(self) -> Any:
        """The connection, with nothing owed on it; a new one where the old one has gone with what it owed."""
        connection = self._connection
        if connection is not None:
            try:
                self._read_owed(connection)
                self._tell_refusal()
                if connection.can_read(timeout=0):
                    self._drop()  # nothing is owed, so this is the end of it
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                self._drop()  # what was on it is lost, as a message to nobody is
            except BaseException:
                self._drop()
                raise
        if self._connection is None:
            self._connection = self._client.connection_pool.get_connection()
        return self._connection

    def _read_owed(self, connection: Any, but: int = 0) -> None:
        while self._owed > but:
            try:
                connection.read_response()
            except redis.ResponseError as error:  # of one message; the answers behind it have to be read all the same
                if self._watched:
                    self._all_taken = False
                else:
                    self._refusal = error
            self._owed -= 1
            self._watched = max(self._watched - 1, 0)

    def _tell_refusal(self) -> None:
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal

    def _drop(self) -> None:
        self._all_taken = self._all_taken and not self._watched
        connection, self._connection = self._connection, None
        self._owed, self._watched, self._refusal = 0, 0, None
        if connection is not None:
            connection.disconnect()
            self._client.connection_pool.release(connection)
