"""How the body of a step that was paused by itself is to stop is the step's own affair, for every heartbeat that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from interlock.core.attempts.leases import renew_leases
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from interlock.core.settings import Settings
    from tests.core.worker_double import WorkerDouble

_FIELD = {"drain": None, "interrupt": "interrupted", "terminate": "terminated"}


@pytest.mark.parametrize("mode", _FIELD)
def test_a_heartbeat_repeats_the_mode_in_which_a_step_was_paused(
    controller: WorkflowController, worker: WorkerDouble, database: Database, settings: Settings, mode: str
) -> None:
    """A broadcast may be lost, so heartbeats say the same: nothing to a body that may finish."""
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="Pause one step.")
    ref, other = worker.claim("a"), worker.claim("b")
    controller.pause_step(run_id, "a", mode=mode)
    beat = renew_leases(database, settings, [ref.task_id, other.task_id])
    told = {name: getattr(beat, name) for name in ("cancelled", "interrupted", "terminated")}
    assert {name: ids for name, ids in told.items() if ids} == ({_FIELD[mode]: [ref.task_id]} if _FIELD[mode] else {})


def test_a_steps_own_mode_is_forgotten_when_it_is_resumed(
    controller: WorkflowController, worker: WorkerDouble, database: Database, settings: Settings
) -> None:
    """Paused by itself to finish, resumed, and paused with its workflow, which interrupts."""
    run_id = controller.enqueue_workflow(steps("a"), task_description="Pause it, then all.")
    ref = worker.claim("a")
    controller.pause_step(run_id, "a", mode="drain")
    controller.resume_step(run_id, "a")
    controller.pause_workflow(run_id)
    assert renew_leases(database, settings, [ref.task_id]).interrupted == [ref.task_id]
