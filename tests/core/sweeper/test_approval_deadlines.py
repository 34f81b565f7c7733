"""Requests for approval whose deadline has passed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from interlock.core.database.types import seconds_after
from interlock.core.errors import AlreadyDecided, CommandRefused
from interlock.core.sweeper.approval_deadlines import ApprovalDeadlines
from tests.core.asking import asked, enqueue, gate, make_overdue
from tests.core.rows import step

if TYPE_CHECKING:
    from interlock.core import Database, WorkflowController
    from interlock.core.sweeper.run_kind import Due
    from interlock.core.sweeper.sweeper import Sweeper, SweepResult
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")


@pytest.mark.parametrize(
    ("approval", "status", "state"),
    [
        ({"default": "approve"}, "completed", "completed"),
        ({"default": "reject"}, "cancelled", "cancelled"),
        ({}, "cancelled", "cancelled"),
        ({"default": "reject", "on_reject": "continue"}, "completed", "completed"),
    ],
    ids=["approve", "reject", "unsaid", "reject-continue"],
)
def test_a_deadline_decides_by_its_default(
    controller: WorkflowController,
    sweeper: Sweeper,
    rows: Rows,
    unchecked_database: Database,
    approval: dict[str, Any],
    status: str,
    state: str,
) -> None:
    run_id = enqueue(controller, gate(deadline_s=60, approvers=["ann"], **approval))
    (request,) = asked(unchecked_database, run_id)
    assert (request.deadline_at - request.requested_at).total_seconds() == pytest.approx(60, abs=1)
    assert sweeper.sweep().decided == 0
    make_overdue(unchecked_database, run_id)
    assert (sweeper.sweep().decided, sweeper.sweep().decided) == (1, 0)
    assert (rows.run(run_id).status, rows.states(run_id)) == (status, {"g": state})
    with pytest.raises(AlreadyDecided) as refused:
        controller.approve_step(run_id, "g", transitioned_by="ann")
    assert refused.value.decided_by == "engine"


def test_a_deadline_is_frozen_while_the_run_is_paused(
    controller: WorkflowController,
    worker: WorkerDouble,
    sweeper: Sweeper,
    rows: Rows,
    unchecked_database: Database,
) -> None:
    run_id = enqueue(controller, gate(deadline_s=60), step("b"))
    controller.pause_workflow(run_id)
    rows.set_run(run_id, paused_at=seconds_after(-3600))
    (before,) = asked(unchecked_database, run_id)
    make_overdue(unchecked_database, run_id)
    assert sweeper.sweep().decided == 0
    worker.queue.clear()
    controller.resume_workflow(run_id)
    (after,) = asked(unchecked_database, run_id)
    assert (after.deadline_at - before.deadline_at).total_seconds() == pytest.approx(3600 - 61, abs=5)
    assert sweeper.sweep().decided == 0
    controller.approve_step(run_id, "g")
    worker.run_all()


def test_a_request_that_cannot_be_decided_keeps_no_other_from_its_deadline(
    controller: WorkflowController,
    sweeper: Sweeper,
    rows: Rows,
    unchecked_database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [enqueue(controller, gate(deadline_s=60, default="approve")) for _ in range(2)]
    for run_id in runs:
        make_overdue(unchecked_database, run_id)
    decide_one = ApprovalDeadlines.enter

    def refuse_the_first(kind: ApprovalDeadlines, due: Due) -> SweepResult:
        if due.run_id == runs[0]:
            raise CommandRefused("approve", "no")
        return decide_one(kind, due)

    monkeypatch.setattr(ApprovalDeadlines, "enter", refuse_the_first)
    assert sweeper.sweep().decided == 1
    assert [rows.run(run_id).status for run_id in runs] == ["waiting_approval", "completed"]
