"""What an error of the database says: was anything written, and would another try fare better?"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from interlock.core.errors import InterlockError

__all__ = ["READ_ONLY", "is_lost_connection", "is_temporary", "is_transient", "is_unavailable"]

# PostgreSQL: serialization_failure, deadlock_detected, lock_not_available.
_TRANSIENT_SQLSTATES = frozenset({"40001", "40P01", "55P03"})
# A server that answers, and may take the same transaction in a while: after a failover it is read-only; class 53 is a full disk,
# no memory, too many connections. SQLite's primary codes: READONLY, IOERR, FULL, CANTOPEN.
READ_ONLY = "25006"
"""SQLSTATE of a server that takes no writes at this moment."""
_NO_ROOM_CLASS = "53"
_SQLITE_NO_ROOM = frozenset({8, 10, 13, 14})


def is_transient(error: BaseException) -> bool:
    """Whether the database itself gave the transaction up, with nothing written, so that a new try may succeed."""
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return state in _TRANSIENT_SQLSTATES
    text = str(original)
    return "database is locked" in text or "database table is locked" in text


def is_lost_connection(error: BaseException) -> bool:
    """Whether the connection broke, so that the outcome of a commit is unknown."""
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    # Class 57P: the server is shutting down or starting up; class 08: connection exceptions; 25P03: we stood still for too long.
    return (
        error.connection_invalidated
        or state.startswith(("57P", "08", "25P03"))
        or (isinstance(error, (OperationalError, InterfaceError)) and "connection" in str(error.orig).lower())
    )


def is_temporary(error: BaseException) -> bool:
    """Whether the same call may succeed in a while: the database is busy, away, full, or not writable at this moment."""
    if isinstance(error, InterlockError):
        return error.retryable
    return is_transient(error) or is_unavailable(error)


def is_unavailable(error: BaseException) -> bool:
    """Whether the database as a whole is away, full, or not writable at this moment: another call would fare no better."""
    return isinstance(error, PoolTimeout) or is_lost_connection(error) or _has_no_room(error)


def _has_no_room(error: BaseException) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None) or ""
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the rest of an extended code is detail
    return state == READ_ONLY or state.startswith(_NO_ROOM_CLASS) or code in _SQLITE_NO_ROOM
