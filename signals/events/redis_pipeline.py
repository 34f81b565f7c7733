"""Sends Redis commands in one write, and reads the replies that nobody waits for before the next write.

PUBLISH replies how many listened, which nobody needs; but a reply may be an error, and a connection whose replies are not read
fills up. By the next write they have long arrived, so draining them then costs no waiting.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Command", "RedisPipeline"]

Command = tuple[str | bytes, ...]
"""A Redis command with its arguments."""


class RedisPipeline:
    """One connection of a client's, for one process; threads may share it."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._connection: Any = None
        self._pending_replies = 0
        self._refusal: redis.ResponseError | None = None  # the last one that was not raised yet
        self._lock = threading.Lock()

    def send(self, commands: Sequence[Command], *, wait_for: int) -> None:
        """Send commands in one write.

        Args:
            commands: In their order.
            wait_for: Of how many, from the first, to read the replies before returning; errors of the rest show at the next call.

        Raises:
            RedisError: Redis is away, or refused one of these or of those before.
        """
        if not commands:
            return
        with self._lock:
            connection = self._ready_connection()
            try:
                connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                self._pending_replies += len(commands)
                self._drain_replies(connection, leave=len(commands) - wait_for)
                self._raise_refusal()
            except BaseException:
                self._drop()
                raise

    def close(self) -> None:
        """Close the connection; the next sending opens another."""
        with self._lock:
            self._drop()

    def _ready_connection(self) -> Any:
        """The connection, with no reply pending; a new one where the old one has gone, with what was on it."""
        connection = self._connection
        if connection is not None:
            try:
                self._drain_replies(connection)
                self._raise_refusal()
                if connection.can_read(timeout=0):
                    self._drop()  # no reply is pending, so this is the end of the stream
            except (redis.ConnectionError, redis.TimeoutError, OSError):
                self._drop()  # its events are lost, as a message to nobody is
            except BaseException:
                self._drop()
                raise
        if self._connection is None:
            self._connection = self._client.connection_pool.get_connection()
        return self._connection

    def _drain_replies(self, connection: Any, leave: int = 0) -> None:
        while self._pending_replies > leave:
            try:
                connection.read_response()
            except redis.ResponseError as error:  # of one command; the replies behind it have to be read all the same
                self._refusal = error
            self._pending_replies -= 1

    def _raise_refusal(self) -> None:
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            raise refusal

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._pending_replies, self._refusal = 0, None
        if connection is not None:
            connection.disconnect()
            self._client.connection_pool.release(connection)
