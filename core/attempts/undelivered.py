"""Makes attempts due again whose message the broker did not take, or a worker dropped.

Neither says anything about the attempt itself, which stays as it is.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from interlock.core.database.chunks import chunked
from interlock.core.database.tables import WorkflowStep, table_of_model
from interlock.core.database.types import seconds_after
from interlock.core.model.states import StepState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from interlock.core.database.database import Database
    from interlock.core.events import Effects
    from interlock.core.settings import Settings

    from .attempts import AttemptRef

__all__ = ["Undelivered"]

_REFUSED: Final = (
    "refused"  # key of a step's `meta`: the attempt that workers did not know what to do with, and how often
)

_steps = table_of_model(WorkflowStep)


class Undelivered:
    """What is told of messages, against one database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings

    def dropped(self, ref: AttemptRef) -> bool:
        """Note that a worker dropped an attempt's message; it becomes due again.

        Returns:
            Whether workers have dropped it so often that none of them will ever take it.
        """

        def work(connection: Connection, effects: Effects) -> bool:  # noqa: ARG001 - `transact`'s protocol
            row = connection.execute(
                select(_steps.c.meta)
                .where(
                    _steps.c.id == ref.step_id,
                    _steps.c.task_id == ref.task_id,
                    _steps.c.claim_token.is_(None),
                    _steps.c.status.in_([StepState.PENDING.value, StepState.RUNNING.value]),
                )
                .with_for_update()
            ).one_or_none()
            if row is None:
                return False
            # In `meta`, because it is rare, and how often it was sent says nothing: it may just have waited in a long queue.
            meta = row.meta or {}
            before = meta.get(_REFUSED, {})
            times = 1 + (before["times"] if before.get("task_id") == ref.task_id else 0)
            refused = {"task_id": ref.task_id, "times": times}
            connection.execute(
                update(_steps)
                .where(_steps.c.id == ref.step_id)
                .values(meta={**meta, _REFUSED: refused}, dispatch_check_at=seconds_after(self._settings.sweep_s)),
            )
            return times >= self._settings.max_dispatch_unknown

        return self._database.transact(work)

    def not_sent(self, task_ids: Sequence[str]) -> None:
        """Have attempts be due at the next sweep whose messages the broker did not take; what was not sent counts for nothing."""
        for ids in chunked(task_ids):
            self._database.transact(partial(self._not_sent, ids))

    def _not_sent(self, task_ids: Sequence[str], connection: Connection, effects: Effects) -> None:  # noqa: ARG002 - `transact`'s
        rows = (
            select(_steps.c.id)
            .where(
                _steps.c.task_id.in_(task_ids),
                _steps.c.claim_token.is_(None),
                _steps.c.dispatch_check_at.is_not(None),
                _steps.c.dispatches > 0,
            )
            # What is locked is being moved: without the runs' locks, several rows may only be taken without waiting.
            .with_for_update(skip_locked=True)
        )
        connection.execute(
            update(_steps)
            .where(_steps.c.id.in_(rows))
            .values(dispatches=_steps.c.dispatches - 1, dispatch_check_at=seconds_after(self._settings.sweep_s)),
        )
