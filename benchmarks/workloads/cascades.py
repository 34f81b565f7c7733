"""Verbs on a run of very many steps: each is one transaction, however many rows it moves."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.deployment import KINDS, Deployment, check_runs, fan_out_of
from benchmarks.measuring import Sample
from benchmarks.turns import turns
from interlock.core import StepState
from interlock.core.database.tables import WorkflowStep
from interlock.core.database.types import clock, seconds_after
from interlock.core.machine.cause import Cause
from interlock.core.machine.unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from benchmarks.options import Options
    from benchmarks.site import Site
    from interlock import Client
    from interlock.core.events import Effects

__all__ = ["measure_cascades"]

_steps = WorkflowStep.__table__


def measure_cascades(site: Site, options: Options) -> Iterator[Sample]:
    """Enqueue and cancel a run whose steps all wait; pause one whose steps all run, and cancel it then."""
    many = options.sizes.many
    with ExitStack() as stack:
        deployments = [stack.enter_context(Deployment(site, kind)) for kind in KINDS]
        for number, deployment in turns(deployments, options.rounds):
            with deployment.client() as client:
                figures = _cascade(deployment, client, many)
            yield Sample("cascade", deployment.name, number, figures)


def _cascade(deployment: Deployment, client: Client, many: int) -> dict[str, float]:
    workflow = fan_out_of(many, joined=False)
    client.list()  # connects
    waiting, enqueue_s = _timed(lambda: client.enqueue(workflow))
    _, cancel_s = _timed(lambda: client.cancel(waiting))
    running = client.enqueue(workflow)
    _hold(deployment, running)
    _, pause_s = _timed(lambda: client.pause(running))
    check_runs(deployment.database, [running], steps=many, status="paused")
    _, cancel_paused_s = _timed(lambda: client.cancel(running))
    check_runs(deployment.database, [waiting, running], steps=2 * many, status="cancelled")
    return {
        "enqueue_s": enqueue_s,
        "cancel_pending_s": cancel_s,
        "pause_running_s": pause_s,
        "cancel_paused_s": cancel_paused_s,
    }


def _hold(deployment: Deployment, run_id: str) -> None:
    """Claim every step, as so many workers would, in one transaction of the write path."""

    def work(connection: Connection, effects: Effects) -> None:
        unit = UnitOfWork.lock(connection, effects, run_id)
        unit.move_steps(
            StepState.RUNNING,
            Cause("worker@benchmark", "claimed"),
            _steps.c.run_id == run_id,
            _steps.c.status == StepState.PENDING.value,
            claim_token="benchmark",  # noqa: S106 - whose claim it is, no password
            claimed_by="worker@benchmark",
            claimed_at=clock(),
            lease_until=seconds_after(3600),
            dispatch_check_at=None,
            started_at=clock(),
        )
        unit.finish()

    deployment.database.transact(work)


def _timed(call: Callable[[], str | None]) -> tuple[str, float]:
    begun = time.perf_counter()
    answer = call()
    return answer or "", time.perf_counter() - begun
