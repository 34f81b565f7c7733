"""Heartbeats: whose leases they renew, and which bodies they say are to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock.core.attempts.leases import renew_leases
from interlock.core.events import Interrupt
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from interlock.core.settings import Settings
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble


def test_a_heartbeat_renews_what_it_names_and_nothing_else(
    controller: WorkflowController, worker: WorkerDouble, rows: Rows, database: Database, settings: Settings
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    ref, _ = worker.claim("a"), worker.claim("b")
    for key in "ab":
        rows.make_due(run_id, key, "lease_until")
    due = {key: rows.step(run_id, key).lease_until for key in "ab"}
    assert renew_leases(database, settings, [ref.task_id]) == []
    assert rows.step(run_id, "a").lease_until > due["a"]
    assert rows.step(run_id, "b").lease_until == due["b"]


def test_a_heartbeat_of_nothing_asks_nobody(database: Database, settings: Settings) -> None:
    assert renew_leases(database, settings, []) == []


def test_what_was_cancelled_is_to_stop_and_what_is_about_to_be_claimed_is_not(
    controller: WorkflowController, worker: WorkerDouble, database: Database, settings: Settings
) -> None:
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="x")
    held, coming = worker.claim("a"), worker.take("b")
    assert renew_leases(database, settings, [held.task_id, coming.task_id]) == []
    controller.cancel_workflow(run_id)
    assert Interrupt(held.task_id, held.task_id, "cancel") in renew_leases(database, settings, [held.task_id])


def test_an_attempt_that_no_step_knows_any_more_is_to_stop(database: Database, settings: Settings) -> None:
    assert renew_leases(database, settings, ["superseded.1"]) == [Interrupt("superseded.1", "superseded.1", "cancel")]


_TOLD = {"drain": None, "interrupt": "soft", "terminate": "terminate"}


@pytest.mark.parametrize("mode", _TOLD)
def test_a_heartbeat_repeats_the_mode_in_which_a_step_was_paused(
    controller: WorkflowController, worker: WorkerDouble, database: Database, settings: Settings, mode: str
) -> None:
    """A broadcast may be lost, so heartbeats say the same: nothing to a body that may finish."""
    run_id = controller.enqueue_workflow(steps("a", "b"), task_description="Pause one step.")
    ref, other = worker.claim("a"), worker.claim("b")
    controller.pause_step(run_id, "a", mode=mode)
    told: Any = _TOLD[mode]
    interrupts = renew_leases(database, settings, [ref.task_id, other.task_id])
    assert interrupts == ([Interrupt(ref.task_id, ref.task_id, told)] if told else [])


def test_a_steps_own_mode_is_forgotten_when_it_is_resumed(
    controller: WorkflowController, worker: WorkerDouble, database: Database, settings: Settings
) -> None:
    """Paused by itself to finish, resumed, and paused with its workflow, which interrupts."""
    run_id = controller.enqueue_workflow(steps("a"), task_description="Pause it, then all.")
    ref = worker.claim("a")
    controller.pause_step(run_id, "a", mode="drain")
    controller.resume_step(run_id, "a")
    controller.pause_workflow(run_id)
    assert renew_leases(database, settings, [ref.task_id]) == [Interrupt(ref.task_id, ref.task_id, "soft")]
