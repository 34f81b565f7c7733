"""Classifies errors of the database: was anything written, and may the same call succeed later?"""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from interlock.core.errors import InterlockError

__all__ = ["READ_ONLY", "is_lost_connection", "is_transient", "is_unavailable", "may_succeed_later"]

READ_ONLY: Final = "25006"
"""SQLSTATE of a server that takes no writes at this moment, as after a failover."""

_TRANSIENT: Final = ("40001", "40P01", "55P03")  # serialization_failure, deadlock_detected, lock_not_available
# Connection exceptions; the server is shutting down or starting up; it ended a transaction that stood still, or took too long.
_LOST: Final = ("08", "57P", "25P03", "25P04")
_NO_ROOM: Final = (READ_ONLY, "53", "58")  # a full disk, no memory, too many connections; errors of the system
_SQLITE_NO_ROOM: Final = frozenset({8, 10, 13, 14})  # READONLY, IOERR, FULL, CANTOPEN
_CANCELLED: Final = "57014"  # by statement_timeout, most often while the statement waited for a lock


def may_succeed_later(error: BaseException) -> bool:
    """Whether the same call may succeed in a while: what it needs is busy, slow, away, full, or not writable at this moment.

    Callers bound their tries: of a statement that ran into a timeout nobody can say whether it is slow or was unlucky.
    """
    if isinstance(error, InterlockError):
        return error.retryable
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    return is_transient(error) or is_unavailable(error) or _sqlstate(error) == _CANCELLED


def is_transient(error: BaseException) -> bool:
    """Whether the database itself gave the transaction up, with nothing written, so that a new try may succeed."""
    if not isinstance(error, DBAPIError):
        return False
    if state := _sqlstate(error):
        return state in _TRANSIENT
    return any(text in str(error.orig) for text in ("database is locked", "database table is locked"))


def is_unavailable(error: BaseException) -> bool:
    """Whether the database as a whole is away, full, or not writable at this moment: another call would fare no better."""
    return isinstance(error, PoolTimeout) or is_lost_connection(error) or _has_no_room(error)


def is_lost_connection(error: BaseException) -> bool:
    """Whether the connection broke, so that the outcome of a commit is unknown."""
    if not isinstance(error, DBAPIError):
        return False
    return (
        error.connection_invalidated
        or _sqlstate(error).startswith(_LOST)
        or (isinstance(error, (OperationalError, InterfaceError)) and "connection" in str(error.orig).lower())
    )


def _has_no_room(error: BaseException) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the rest of an extended code is detail
    return _sqlstate(error).startswith(_NO_ROOM) or code in _SQLITE_NO_ROOM


def _sqlstate(error: BaseException) -> str:
    """PostgreSQL's code of the error; empty for other errors, and for those of SQLite."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""
