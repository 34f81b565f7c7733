"""Limits how many messages are sent again: one allowance in the database, shared by the sweepers of all workers.

Stored as the time, by the database's clock, up to which the allowance is used up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from sqlalchemy import case, select, update

from interlock.core.database.dialects import insert_new
from interlock.core.database.tables import RedispatchBudget, table_of_model
from interlock.core.database.types import clock, seconds_after, seconds_between

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from interlock.core.settings import Settings

__all__ = ["RedispatchRate"]

_budget = table_of_model(RedispatchBudget)

_ROW: Final = {"id": 1}
_IS_ROW: Final = _budget.c.id == _ROW["id"]
_ROUNDING: Final = 1e-6
_SET_BACK_S: Final = 1.0
"""How far beyond the possible the paid time must lie before the clock is taken to have been set back. SQLite counts days in one
float, whose last place is 40 microseconds: asked again within a millisecond, an allowance just used up looks longer than it is."""


class RedispatchRate:
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
        ahead = select(seconds_between(clock(), _budget.c.paid_until)).where(_IS_ROW).with_for_update(skip_locked=True)
        ahead_s = connection.scalar(ahead)
        if ahead_s is None:
            if not insert_new(connection, _budget, _ROW):
                return 0
            ahead_s = 0.0
        # Further ahead than it can have been paid for: the database's clock was set back.
        used_s = float(ahead_s) if 0 < ahead_s <= self._burst_s + _SET_BACK_S else 0.0
        return max(0, math.floor((self._burst_s - used_s) * self._rate + _ROUNDING))

    def pay(self, connection: Connection, sent: int) -> None:
        """Charge what was sent; call it in the transaction of `draw`."""
        paid, now = _budget.c.paid_until, clock()
        from_now = case((paid.between(now, seconds_after(self._burst_s + _SET_BACK_S)), paid), else_=now)
        connection.execute(update(_budget).where(_IS_ROW).values(paid_until=seconds_after(sent / self._rate, from_now)))
