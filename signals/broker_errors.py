"""The errors of a broker that is away or refuses: kombu wraps some of its transports' errors and lets others through."""

from __future__ import annotations

from typing import Final

from amqp.exceptions import AMQPError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

__all__ = ["BROKER_ERRORS"]

BROKER_ERRORS: Final[tuple[type[Exception], ...]] = (KombuError, AMQPError, RedisError, OSError)
"""Errors of sending or receiving that say nothing about the message."""
