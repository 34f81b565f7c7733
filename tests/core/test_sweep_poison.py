"""A run that cannot be swept, whatever is wrong with it, keeps no other run from being swept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import OperationalError

from .rows import steps

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from interlock.core.sweep import Sweeper

    from .rows import Rows
    from .worker_double import WorkerDouble


@pytest.fixture
def two_lost(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> tuple[str, str]:
    """Two runs, each with a step whose lease has ended, the first one first."""
    ids = [controller.enqueue_workflow(steps("a"), task_description="Be lost.") for _ in range(2)]
    for _ in ids:
        worker.claim("a")
    for run_id in ids:
        rows.make_due(run_id, "a", "lease_until")
    return ids[0], ids[1]


def test_a_row_that_this_version_cannot_read_stops_nobody_else(
    sweeper: Sweeper, rows: Rows, two_lost: tuple[str, str]
) -> None:
    """A policy with an option of a newer version: an error of no kind that the engine raises itself."""
    poisoned, healthy = two_lost
    rows.set_step(poisoned, "a", spec={"retry": {"max_attempts": 3, "novelty": True}})
    sweeper.sweep()
    assert rows.step(healthy, "a").losses == 1
    assert rows.step(poisoned, "a").losses == 0


@pytest.mark.usefixtures("unchecked_database")
def test_a_run_whose_history_refuses_rows_stops_nobody_else(
    controller: WorkflowController, sweeper: Sweeper, rows: Rows, two_lost: tuple[str, str]
) -> None:
    """Its number was set back, so that every row collides with one that is there."""
    poisoned, healthy = two_lost
    seq = rows.run(poisoned).seq
    rows.set_run(poisoned, seq=1)
    sweeper.sweep()
    assert rows.step(healthy, "a").losses == 1
    rows.set_run(poisoned, seq=seq)
    assert sweeper.sweep().lost == 1
    controller.cancel_workflow(poisoned)


def test_a_database_that_is_away_ends_the_sweep(
    sweeper: Sweeper, two_lost: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would come of going on: the other runs are in the same database."""
    tried: list[str] = []

    def away(row: object) -> bool:
        tried.append(str(row))
        raise OperationalError("SELECT", {}, Exception("connection refused"))

    assert two_lost
    monkeypatch.setattr(sweeper._attempts, "fail_within", lambda *_: away(_))
    with pytest.raises(OperationalError):
        sweeper.sweep()
    assert len(tried) == 1
