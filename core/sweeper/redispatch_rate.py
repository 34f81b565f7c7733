"""How many messages may be sent again now: one allowance, on which the sweepers of all workers draw.

It is kept in a row of `control_commands` under a session's name that no session can have: the time up to which everything that
was sent again is paid for, by the database's clock. Whoever draws holds the row until the commit, and the others send nothing then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from sqlalchemy import case, select, update

from interlock.core.database.dialects import insert_new
from interlock.core.database.tables import ControlCommand, table_of_model
from interlock.core.database.types import clock, seconds_after, seconds_between

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from interlock.core.settings import Settings

__all__ = ["Pace"]

_rows = table_of_model(ControlCommand)

_KEY: Final = {"session_id": "*", "id": "redispatch"}  # no session may be named so
_OURS: Final = [_rows.c[name] == value for name, value in _KEY.items()]
_ROUNDING: Final = 1e-6
_SET_BACK_S: Final = 1.0
"""How far beyond the possible the paid time must lie before the clock is taken to have been set back. SQLite counts days in one
float, whose last place is 40 microseconds: asked again within a millisecond, an allowance just used up looks longer than it is."""


class Pace:
    """`redispatch_rate` messages a second over all processes, and one sweep's worth of them at once.

    In any T seconds they send at most `redispatch_rate * (T + sweep_s)` messages again.
    """

    def __init__(self, settings: Settings) -> None:
        self._rate = settings.redispatch_rate
        self._burst_s = max(settings.sweep_s, 1 / self._rate)

    @property
    def burst(self) -> int:
        """How many may be sent at once after a quiet time."""
        return math.floor(self._burst_s * self._rate + _ROUNDING)

    def draw(self, connection: Connection) -> int:
        """How many messages may be sent again in this transaction; 0 also while another process holds the allowance."""
        ahead = select(seconds_between(clock(), _rows.c.created_at)).where(*_OURS).with_for_update(skip_locked=True)
        ahead_s = connection.scalar(ahead)
        if ahead_s is None:
            if not self._begin(connection):
                return 0
            ahead_s = 0.0
        # Further ahead than it can have been paid for: the database's clock was set back.
        used_s = float(ahead_s) if 0 < ahead_s <= self._burst_s + _SET_BACK_S else 0.0
        return max(0, math.floor((self._burst_s - used_s) * self._rate + _ROUNDING))

    def pay(self, connection: Connection, sent: int) -> None:
        """Charge what was sent; call it in the transaction of `draw`."""
        paid, now = _rows.c.created_at, clock()
        from_now = case((paid.between(now, seconds_after(self._burst_s + _SET_BACK_S)), paid), else_=now)
        connection.execute(update(_rows).where(*_OURS).values(created_at=seconds_after(sent / self._rate, from_now)))

    @staticmethod
    def _begin(connection: Connection) -> bool:
        """Make the row; False where it is there and somebody holds it."""
        return insert_new(connection, _rows, {**_KEY, "command": "redispatch", "outcome": {}})
