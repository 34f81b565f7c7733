"""Renews the leases of the attempts that a worker names in its heartbeat, and finds those that must stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sqlalchemy import func, or_, select, update

from interlock.core.database.tables import WorkflowRun, WorkflowStep, table_of_model
from interlock.core.database.types import seconds_after
from interlock.core.events import Interrupt
from interlock.core.model.states import StepState

from .run_through import carriers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from interlock.core.database.database import Database
    from interlock.core.settings import Settings

__all__ = ["renew_leases"]

_runs = table_of_model(WorkflowRun)
_steps = table_of_model(WorkflowStep)


def renew_leases(database: Database, settings: Settings, message_ids: Sequence[str]) -> list[Interrupt]:
    """Renew the leases of the attempts that a worker names, and find those that no longer count.

    Rows that somebody else has locked are left for the next heartbeat, which comes long before the lease ends.

    Args:
        database: Where.
        settings: Gives the lease.
        message_ids: Celery ids of the messages whose bodies run at this moment.

    Returns:
        What is to stop.
    """
    if not message_ids:
        return []
    return database.transact(lambda connection, _: _renew(connection, settings, message_ids), "heartbeat")


def _renew(connection: Connection, settings: Settings, message_ids: Sequence[str]) -> list[Interrupt]:
    carriers = carriers_of(connection, message_ids)
    task_ids = [*message_ids, *carriers]
    for held, until in (("claim_token", "lease_until"), ("drain_token", "drain_until")):
        task_id = _steps.c.task_id if held == "claim_token" else _steps.c.drain_task_id
        rows = (
            select(_steps.c.id)
            .where(task_id.in_(task_ids), _steps.c[held].is_not(None))
            .with_for_update(skip_locked=True)
        )
        connection.execute(
            update(_steps).where(_steps.c.id.in_(rows)).values({until: seconds_after(settings.lease_s)}),
        )
    return [
        Interrupt(task_id, carriers.get(task_id, task_id), mode) for task_id, mode in _to_stop(connection, task_ids)
    ]


def _to_stop(
    connection: Connection, task_ids: Sequence[str]
) -> list[tuple[str, Literal["soft", "cancel", "terminate"]]]:
    """Which of these attempts are to stop, and how."""
    rows = connection.execute(
        select(
            _steps.c.task_id,
            _steps.c.drain_task_id,
            _steps.c.status,
            func.coalesce(_steps.c.pause_mode, _runs.c.pause_mode).label("pause_mode"),
        )
        .join(_runs, _runs.c.id == _steps.c.run_id)
        .where(or_(_steps.c.task_id.in_(task_ids), _steps.c.drain_task_id.in_(task_ids))),
    ).all()
    live = (StepState.PENDING.value, StepState.RUNNING.value)
    known: set[str] = set()
    stops: list[tuple[str, Literal["soft", "cancel", "terminate"]]] = []
    for row in rows:
        if row.drain_task_id in task_ids:
            known.add(row.drain_task_id)
            if row.status == StepState.PAUSED.value:
                if row.pause_mode == "terminate":
                    stops.append((row.drain_task_id, "terminate"))
                elif row.pause_mode != "drain":
                    stops.append((row.drain_task_id, "soft"))
            elif row.status != StepState.RUNNING.value:
                stops.append((row.drain_task_id, "cancel"))
        if row.task_id in task_ids and row.status in live:
            known.add(row.task_id)  # current, or about to be claimed
        elif row.task_id in task_ids and row.task_id != row.drain_task_id:
            known.add(row.task_id)
            if row.status == StepState.CANCELLED.value:
                stops.append((row.task_id, "cancel"))
    # An id that no step has as its current or draining attempt was superseded: what its body does no longer counts.
    return [*stops, *((task_id, "cancel") for task_id in task_ids if task_id not in known)]
