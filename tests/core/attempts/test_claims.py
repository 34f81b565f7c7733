"""Claims: to whom an attempt is granted, and what its row says then."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from interlock.core.attempts.attempts import AttemptRef, Report
from tests.core.rows import steps

if TYPE_CHECKING:
    from interlock.core import WorkflowController
    from tests.core.rows import Rows
    from tests.core.worker_double import WorkerDouble

pytestmark = pytest.mark.usefixtures("database")
NO_DELAY = {"initial_delay_s": 0.0, "jitter": 0.0}
OTHER = "another-token"


def _one(controller: WorkflowController, **options: Any) -> str:
    """A run of one step, a."""
    return controller.enqueue_workflow(steps("a", **options), task_description="x")


def test_a_claim_records_who_holds_the_step_and_until_when(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller)
    ref = worker.claim("a", "worker@7")
    row = rows.step(run_id, "a")
    assert (row.status, row.claimed_by, row.claim_token, row.task_id) == (
        "running",
        "worker@7",
        ref.token,
        f"{row.id}.1",
    )
    assert (row.lease_until - row.claimed_at).total_seconds() == pytest.approx(30, abs=0.5)
    assert row.timeout_at is None
    assert row.dispatch_check_at is None
    assert rows.history(run_id)[-1].transitioned_by == "worker@7"


def test_a_timeout_is_counted_from_the_claim(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    """With the grace and a lease on top: Celery's own limits come first."""
    run_id = _one(controller, timeout_s=100)
    worker.claim("a")
    row = rows.step(run_id, "a")
    assert (row.timeout_at - row.claimed_at).total_seconds() == pytest.approx(140, abs=0.5)


def test_one_of_many_claims_is_granted(controller: WorkflowController, worker: WorkerDouble, rows: Rows) -> None:
    run_id = _one(controller)
    ref = worker.take("a")
    refs = [replace(ref, token=f"token-{n}") for n in range(8)]
    claims = [worker.attempts.claim(ref, f"worker@{n}") for n, ref in enumerate(refs)]
    assert [claim.granted for claim in claims] == [True, *[False] * 7]
    assert {claim.reason for claim in claims[1:]} == {"worker@0 holds it"}
    assert rows.path(run_id, "a") == ["pending", "running"]


def test_ones_own_claim_whose_answer_was_lost_is_granted_again(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller)
    ref = worker.claim("a")
    assert worker.attempts.claim(ref, "worker@1").granted
    assert rows.path(run_id, "a") == ["pending", "running"]
    assert worker.attempts.complete(ref, 1) is Report.RECORDED
    assert not worker.attempts.claim(ref, "worker@1").granted


def test_a_retry_too_is_claimed_by_one_and_granted_to_it_again(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller, retry={"max_attempts": 2, "initial_delay_s": 0.0, "jitter": 0.0})
    worker.run_failing("a")
    ref = worker.take("a")
    assert worker.attempts.claim(ref, "worker@1").granted
    assert worker.attempts.claim(ref, "worker@1").granted
    late = worker.attempts.claim(replace(ref, token="another"), "worker@2")
    assert (late.granted, late.reason) == (False, "worker@1 holds it")
    assert rows.path(run_id, "a") == ["pending", "running", "failed", "running"]
    assert worker.attempts.complete(ref, 1) is Report.RECORDED


def test_no_claim_is_granted_while_the_run_is_paused_or_after_it_has_ended(
    controller: WorkflowController,
    worker: WorkerDouble,
) -> None:
    run_id = _one(controller)
    ref = worker.take("a")
    controller.pause_workflow(run_id)
    assert worker.attempts.claim(ref, "w").reason == "the workflow is paused"
    controller.resume_workflow(run_id)
    controller.cancel_workflow(run_id)
    assert worker.attempts.claim(ref, "w").reason == "the workflow is cancelled"


def test_an_attempt_that_was_replaced_cannot_be_claimed(
    controller: WorkflowController,
    worker: WorkerDouble,
    rows: Rows,
) -> None:
    run_id = _one(controller, retry={"max_attempts": 2, **NO_DELAY})
    old = worker.claim("a")
    worker.fail("a")
    claim = worker.attempts.claim(replace(old, token=OTHER), "w")
    assert (claim.granted, claim.reason) == (False, "attempt 2 has replaced it")
    assert rows.step(run_id, "a").claim_token is None


def test_a_claim_of_a_step_that_does_not_exist_is_refused(controller: WorkflowController, worker: WorkerDouble) -> None:
    run_id = _one(controller)
    nobody = AttemptRef(run_id, "00000000-0000-0000-0000-000000000000", "x.1", token=OTHER)
    assert worker.attempts.claim(nobody, "w").reason == "there is no such step"
    assert worker.attempts.complete(nobody, 1) is Report.STALE
