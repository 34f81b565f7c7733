"""What the database gave up on is done again: nothing of it was written, so everything is evaluated anew."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Final, TypeVar

from interlock.core.errors import DatabaseBusy

from .errors import is_transient

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["repeated"]

T = TypeVar("T")

_ATTEMPTS: Final = 8


def repeated(once: Callable[[], T], also: tuple[type[Exception], ...] = ()) -> T:
    """Return what `once` returns; it is called again after a deadlock, a serialization failure, a lock that took too long.

    Args:
        once: Opens its transaction by itself, and ends it.
        also: Further errors that say that nothing was written and that another try may succeed.

    Raises:
        DatabaseBusy: The database gave up on every try.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return once()
        except Exception as error:
            transient = is_transient(error)
            if not transient and not isinstance(error, also):
                raise
            if attempt == _ATTEMPTS:
                if not transient:
                    raise
                msg = f"the database gave up on the transaction {_ATTEMPTS} times: {getattr(error, 'orig', error)}"
                raise DatabaseBusy(msg) from error
        time.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - losers of a deadlock must not meet again at once
    raise AssertionError  # pragma: no cover - the loop returns or raises
