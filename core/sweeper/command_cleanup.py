"""Deletes outcomes of control commands that are too old to be asked for again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete

from interlock.core.database.tables import ControlCommand, table_of_model
from interlock.core.database.types import seconds_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from interlock.core.database.database import Database
    from interlock.core.settings import Settings

__all__ = ["CommandCleanup"]

_EVERY_S: Final = 60.0  # they are kept for hours

_commands = table_of_model(ControlCommand)


class CommandCleanup:
    """Deletes those that are older than `command_ids_kept_s`, once a minute."""

    def __init__(self, database: Database, settings: Settings, clock: Callable[[], float]) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._next_at = float("-inf")

    def delete_old(self) -> None:
        """Delete them, where a minute has passed since the last time."""
        now = self._clock()
        if now < self._next_at:
            return
        self._next_at = now + _EVERY_S
        old = _commands.c.created_at < seconds_after(-self._settings.command_ids_kept_s)
        self._database.transact(lambda connection, _: connection.execute(delete(_commands).where(old)))
