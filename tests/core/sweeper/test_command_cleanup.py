"""Outcomes of commands are kept for a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from interlock.core.database.tables import ControlCommand
from interlock.core.database.types import seconds_after
from interlock.core.settings import Settings
from interlock.core.sweeper.sweeper import Sweeper

if TYPE_CHECKING:
    from interlock.core import Database


def test_outcomes_of_commands_are_forgotten_after_their_time(database: Database) -> None:
    with database.session() as session:
        for name, age_s in (("old", 100), ("young", 1)):
            created_at = seconds_after(-age_s)
            session.execute(
                insert(ControlCommand).values(
                    session_id="s", id=name, command="pause", outcome={"ok": True}, created_at=created_at
                ),
            )
    Sweeper(database, Settings(command_ids_kept_s=50)).sweep()
    with database.session() as session:
        assert list(session.scalars(select(ControlCommand.id))) == ["young"]
